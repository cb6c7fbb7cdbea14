"""This process makes one batch after another: the default on one device."""

from spar_bench.backends.base import Setup
from spar_bench.engine.events import Emit
from spar_bench.engine.workplan import WorkPlan
from spar_bench.stages.base import Stage

VERSION = 1


class Backend:
    """Makes a batch when it is submitted: there is always room, and never anything to wait for."""

    def __init__(self, setup: Setup) -> None:
        self._make, self._help = setup.make, setup.help
        self._plan: WorkPlan | None = None

    def use(self, plan: WorkPlan) -> None:
        """Take the plan of what is submitted."""
        self._plan = plan

    def room(self, stage: Stage) -> int:
        """Return 1."""
        return 1

    def submit(self, batch: list[Stage], emit: Emit) -> None:
        """Make a batch now."""
        assert self._plan is not None, "a backend is given a plan first"
        self._make(self._plan, batch, emit)

    def help(self, batch: list[Stage], emit: Emit) -> None:
        """Do parts of a batch now."""
        assert self._plan is not None, "a backend is given a plan first"
        self._help(self._plan, batch, emit)

    def wait(self) -> None:
        """Do nothing: what was submitted has ended."""

    def close(self) -> None:
        """Do nothing."""
