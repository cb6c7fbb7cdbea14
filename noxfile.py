"""Checks of the project. Install once with `pip install -e . --group dev`, then run `nox`.

The environment takes 6 GB, so all sessions except `minimums` run in nox's own environment.
"""

import sys
import tempfile
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "smoke", "tests"]
nox.needs_version = ">=2025.5"

OWN = Path(sys.executable).parent
"""Programs of nox's own environment: PATH leads elsewhere if it is not activated."""


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Check the code's style."""
    session.run(f"{OWN}/ruff", "check", ".")
    session.run(f"{OWN}/ruff", "format", "--check", ".")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Check types strictly, tests included."""
    session.run(f"{OWN}/mypy")


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run the tests that take seconds."""
    session.run(f"{OWN}/pytest", *session.posargs)


@nox.session(venv_backend="none")
def slow(session: nox.Session) -> None:
    """Run the tests that take minutes."""
    session.run(f"{OWN}/pytest", "-m", "slow and not gpu and not network", *session.posargs)


@nox.session(venv_backend="none")
def soak(session: nox.Session) -> None:
    """Half an hour of faults at random; needs root and PostgreSQL."""
    session.run(f"{OWN}/python", "-m", "tests.soak", *session.posargs)


@nox.session(venv_backend="none")
def browser(session: nox.Session) -> None:
    """Run the tests of the HTML page in headless Chromium."""
    session.run(f"{OWN}/pytest", "-m", "browser", *session.posargs)


@nox.session(venv_backend="none")
def smoke(session: nox.Session) -> None:
    """Run the smallest experiment and its report, in an empty folder."""
    spec = Path("experiments/smoke.yaml").absolute()
    with tempfile.TemporaryDirectory() as folder, session.chdir(folder):
        session.run(f"{OWN}/spar-bench", "sweep", str(spec))
        session.run(f"{OWN}/spar-bench", "report", "smoke")


@nox.session(venv_backend="none")
def schema(session: nox.Session) -> None:
    """Rewrite the JSON Schema of specs; a test checks that it matches the models."""
    session.run(f"{OWN}/python", "-m", "spar_bench.spec")


@nox.session(venv_backend="uv")
def minimums(session: nox.Session) -> None:
    """Run the tests with the lowest versions that pyproject.toml allows.

    They warn about what later versions changed, so warnings are not errors here.
    """
    session.install("--resolution", "lowest-direct", "-e", ".", "--group", "test")
    session.run("pytest", "-W", "default", *session.posargs)
