"""What a worker hears from its parent, and its end when that one has ended."""

import subprocess
import sys

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
