"""What a worker hears from its parent, and its end when that one has ended."""

import subprocess
import sys

import pytest

LISTENING = """
import sys, time
from spar_bench.engine import parent
parent.LAST_MOMENTS_S = 0.3
heard = parent.Parent(sys.stdin)
print(heard.hear(), heard.hear(), heard.has_ended.is_set(), "torch" in sys.modules, flush=True)
print(heard.hear(), heard.has_ended.wait(10), flush=True)
time.sleep(60)
"""


def test_messages_come_in_order_and_the_process_ends_soon_after_them() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LISTENING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write('{"make": [1]}\n{"make": [2]}\n')
        worker.stdin.flush()
        heard = worker.stdout.readline()
        worker.stdin.close()
        ended = worker.stdout.read()

    assert heard == "{'make': [1]} {'make': [2]} False False\n"
    assert ended == "None True\n"
    assert worker.returncode == 1


STOPPED = """
import sys, time
from spar_bench.engine import parent
parent.LAST_MOMENTS_S = 0.3
heard = parent.Parent(sys.stdin)
print(heard.hear(), heard.has_ended.is_set(), flush=True)
time.sleep(1)
print("in its own time", flush=True)
"""


def test_worker_that_is_told_to_stop_does_so_in_its_own_time() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write('{"stop": true}\n')
        worker.stdin.flush()
        said = worker.stdout.read()

    assert said == "None True\nin its own time\n"
    assert worker.returncode == 0


@pytest.mark.parametrize("half", ['{"make": [1', "\x00"])
def test_half_a_line_of_a_killed_parent_ends_the_process_too(half: str) -> None:
    code = LISTENING.replace("print(heard.hear(), heard.hear(),", "print(")
    result = subprocess.run(
        [sys.executable, "-c", code], input=half, capture_output=True, text=True, timeout=30
    )

    assert result.returncode == 1
    assert "None True\n" in result.stdout


PRINTING = """
import sys
from spar_bench.engine.parent import take_output
out = take_output()
print("from a library")
out.write("an event\\n")
"""


def test_output_takes_events_alone() -> None:
    result = subprocess.run([sys.executable, "-c", PRINTING], capture_output=True, text=True)

    assert (result.stdout, result.stderr) == ("an event\n", "from a library\n")
