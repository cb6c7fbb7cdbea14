"""The results of a sweep say what its spec says."""

from pathlib import Path

from spar_bench.conflicts import read_spec
from spar_bench.resolve import Resolver
from spar_bench.session.collect import Collector
from spar_bench.session.planning import lay_out
from spar_bench.session.results import results
from spar_bench.store import Store
from tests.datasets.trees import make
from tests.small import UNTIMED, write_spec


def test_background_is_called_so_and_not_by_the_first_thing_seen_in_it(here: Path) -> None:
    make("voc21", here / "data", n=1)
    spec = write_spec(UNTIMED.replace("{name: patchwork, count: 2}", "voc21"))
    loaded, store = read_spec(Path(spec)), Store(Path(".spar_bench"))
    [suite] = lay_out([loaded], store, Resolver())
    collector = Collector(loaded.experiment, suite.whole, store)

    found = results(collector, loaded, spec_hash="", seeds=[0], objectives={})

    names = found.classes[found.rows[0].classes]
    assert names[:3] == ["background", "aeroplane", "bicycle"]
