"""Checks of the project. Install once with `pip install -e . --group dev`, then run `nox`.

The environment weighs 6 GB, so all sessions but `minimums` run in the one that nox itself is in.
"""

from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests", "smoke"]
nox.needs_version = ">=2025.5"


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Hold the code to its style."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Check types strictly, tests included."""
    session.run("mypy")


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run the tests that take seconds."""
    session.run("pytest", *session.posargs)


@nox.session(venv_backend="none")
def slow(session: nox.Session) -> None:
    """Run the tests that take minutes."""
    session.run("pytest", "-m", "slow and not gpu and not network", *session.posargs)


@nox.session(venv_backend="none")
def smoke(session: nox.Session) -> None:
    """Run the smallest experiment to its report, in an empty folder."""
    spec = Path("experiments/smoke.yaml").absolute()
    session.chdir(session.create_tmp())
    session.run("spar-bench", "sweep", str(spec))
    session.run("spar-bench", "report", "smoke")


@nox.session(venv_backend="none")
def schema(session: nox.Session) -> None:
    """Write the JSON Schema of specs anew; a test holds it equal to the models."""
    session.run("python", "-m", "spar_bench.spec")


@nox.session(venv_backend="uv")
def minimums(session: nox.Session) -> None:
    """Run the tests with the oldest versions that pyproject.toml admits."""
    group = nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "test")
    session.install("--resolution", "lowest-direct", "-e", ".", *group)
    session.run("pytest", "-W", "default", *session.posargs)
