"""How fast stages were made: the speeds from which a plan's time is estimated."""

from collections.abc import Iterable
from statistics import median

from spar_bench.stage import Finished

DEFAULT_GFLOPS_PER_S = 60.0
"""Speed assumed if the store has no measured stage of a kind: two laptop cores in float32."""
TELLING_GFLOPS = 50.0
"""The time of a smaller stage is mostly loading, so it does not measure speed."""


def speeds(finished: Iterable[Finished]) -> dict[str, float]:
    """Return the measured GFLOP/s of each kind of stage: the median over stages large enough."""
    found: dict[str, list[float]] = {}
    for stage in finished:
        made = stage.manifest["made"]
        if made.get("gflops", 0.0) >= TELLING_GFLOPS and made.get("seconds"):
            found.setdefault(stage.manifest["kind"], []).append(made["gflops"] / made["seconds"])
    return {kind: median(values) for kind, values in found.items()}
