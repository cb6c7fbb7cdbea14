"""What was asked lately is not asked again, and a later answer is not lost to an earlier one."""

import threading

import pytest

from spar_bench.bucket.recent import Recent


def test_answer_is_asked_for_again_once_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = [0.0], list[float]()
    monkeypatch.setattr("spar_bench.bucket.recent.time.monotonic", lambda: now[0])

    def ask() -> float:
        asked.append(now[0])
        now[0] += took
        return asked[-1]

    recent, took = Recent(ask, age_s=2.0), 0.1
    for now[0] in (0.0, 1.0, 2.0, 2.2):
        recent.get()
    assert asked == [0.0, 2.2]
    took = 1.0
    for now[0] in (5.0, 15.9, 16.1):
        recent.get()
    assert asked == [0.0, 2.2, 5.0, 16.1]
    recent.forget()
    assert recent.get() == 17.1


def test_slow_answer_to_one_thread_does_not_replace_a_later_one() -> None:
    there, slow, goes_on = {"a"}, threading.Event(), threading.Event()

    def ask() -> set[str]:
        found = set(there)
        if not slow.is_set():
            slow.set()
            goes_on.wait()
        return found

    recent = Recent(ask, age_s=3600.0)
    first = threading.Thread(target=recent.get)
    first.start()
    slow.wait()
    there.add("b")

    def ask_anew() -> None:
        recent.forget()
        recent.get()

    second = threading.Thread(target=ask_anew)
    second.start()
    second.join(0.2)  # without a lock it is answered now, and the first one's answer stays
    goes_on.set()
    first.join()
    second.join()

    assert recent.get() == {"a", "b"}
