"""spar-bench: what finer sliding windows buy, what they cost, and whether one pass gets there."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spar_bench.api import evaluate, load_backbone, measure
    from spar_bench.conflicts import read_spec
    from spar_bench.run.inference import single_pass, sliding_window
    from spar_bench.session.planning import plan_sweep
    from spar_bench.session.reports import write_report
    from spar_bench.session.sweep import Options, sweep
    from spar_bench.spec.schema import DatasetSpec

__version__ = "0.1.0"

_HOME = {
    "load_backbone": "spar_bench.api",
    "evaluate": "spar_bench.api",
    "measure": "spar_bench.api",
    "single_pass": "spar_bench.run.inference",
    "sliding_window": "spar_bench.run.inference",
    "read_spec": "spar_bench.conflicts",
    "plan_sweep": "spar_bench.session.planning",
    "write_report": "spar_bench.session.reports",
    "sweep": "spar_bench.session.sweep",
    "Options": "spar_bench.session.sweep",
    "DatasetSpec": "spar_bench.spec.schema",
}

__all__ = [
    "DatasetSpec",
    "Options",
    "evaluate",
    "load_backbone",
    "measure",
    "plan_sweep",
    "read_spec",
    "single_pass",
    "sliding_window",
    "sweep",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that torch is not imported sooner."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
