"""The scripts and manifests for clusters: they parse, and say what the commands accept."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from spar_bench.cli import main

FOLDER = Path(__file__).parents[1] / "docs" / "clusters"
SPEC = FOLDER.parents[1] / "experiments" / "smoke.yaml"
SCRIPTS = sorted(FOLDER.glob("*.sbatch"))


def closed(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """Return the schema of an object with these properties and no others."""
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


TEXT, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
QUANTITIES = {"type": "object", "additionalProperties": {"type": ["string", "integer"]}}
CONTAINER = closed(
    {"name": TEXT, "image": TEXT},
    workingDir=TEXT,
    env={"type": "array", "items": closed({"name": TEXT, "value": {"type": "string"}})},
    resources=closed({}, requests=QUANTITIES, limits=QUANTITIES),
    volumeMounts={"type": "array", "items": closed({"name": TEXT, "mountPath": TEXT})},
)
POD = closed(
    {"spec": closed(
        {"containers": {"type": "array", "minItems": 1, "items": CONTAINER}},
        volumes={"type": "array", "items": closed(
            {"name": TEXT, "persistentVolumeClaim": closed({"claimName": TEXT})}
        )},
    )}
)  # fmt: skip
RAYJOB = closed(
    {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": closed({"name": TEXT}),
        "spec": closed(
            {
                "entrypoint": TEXT,
                "rayClusterSpec": closed(
                    {
                        "rayVersion": TEXT,
                        "headGroupSpec": closed({"rayStartParams": TEXTS, "template": POD}),
                        "workerGroupSpecs": {
                            "type": "array",
                            "items": closed(
                                {"groupName": TEXT, "rayStartParams": TEXTS, "template": POD},
                                replicas=COUNT,
                                minReplicas=COUNT,
                                maxReplicas=COUNT,
                            ),
                        },
                    }
                ),
            },
            submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
            shutdownAfterJobFinishes={"type": "boolean"},
            ttlSecondsAfterFinished=COUNT,
        ),
    }
)
"""What the manifest uses of the CustomResourceDefinition `rayjobs.ray.io`, v1, and of pods."""


def requires_acceptance(command: list[str]) -> None:
    """Fail unless a command of spar-bench takes these options."""
    name, *arguments = command
    found = main.get_command(None, name)  # type: ignore[arg-type]
    assert found is not None
    found.make_context(name, arguments)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_parses_and_runs_commands_that_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    subprocess.run(["bash", "-n", str(path)], check=True)
    joined = text.replace("\\\n", " ")
    commands = re.findall(r"spar-bench ((?:sweep|work) [^;\n]*)", joined)

    assert commands
    for command in commands:
        given = re.sub(r"\$spec|\$\{1:\?[^}]*\}", str(SPEC), command.partition(" #")[0])
        requires_acceptance(shlex.split(re.sub(r"\$\w+", "7", given).replace('"', "")))


def test_manifest_of_kuberay_fits_what_it_uses_of_the_schema() -> None:
    manifest = YAML(typ="safe").load(FOLDER / "rayjob.yaml")

    Draft202012Validator.check_schema(RAYJOB)
    errors = [error.message for error in Draft202012Validator(RAYJOB).iter_errors(manifest)]

    assert errors == []
    program, *command = shlex.split(manifest["spec"]["entrypoint"])
    assert program == "spar-bench"
    requires_acceptance(command)
