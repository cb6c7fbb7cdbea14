"""The MLflow mirror of finished trials; the only place that imports MLflow, and only when used."""

from spar_bench.track.client import answers
from spar_bench.track.entry import Details, RunRecord
from spar_bench.track.mirror import Mirror
from spar_bench.track.runs import Ending, SweepRecord
from spar_bench.track.shown import RunLink, Runs, Shown
from spar_bench.track.ui import ui_command
from spar_bench.track.uri import masked, tracking_uri
from spar_bench.track.view import view_urls

__all__ = [
    "Details",
    "Ending",
    "Mirror",
    "RunLink",
    "RunRecord",
    "Runs",
    "Shown",
    "SweepRecord",
    "answers",
    "masked",
    "tracking_uri",
    "ui_command",
    "view_urls",
]
