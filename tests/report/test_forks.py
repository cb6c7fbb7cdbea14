"""Work that is shared among forks: what they return and raise."""

import os

import pytest

from spar_bench.report.forks import Turns, in_forks, n_forks


def test_each_share_has_a_process_of_its_own_and_the_first_is_this_one() -> None:
    found = in_forks(lambda share: (share, os.getpid()), 3)

    assert [share for share, _ in found] == [0, 1, 2]
    assert found[0][1] == os.getpid()
    assert len({process for _, process in found}) == 3


def test_fork_has_what_this_process_has_and_changes_only_its_own() -> None:
    seen = ["here"]

    def work(share: int) -> list[str]:
        seen.append(f"share {share}")
        return list(seen)

    assert in_forks(work, 2) == [["here", "share 0"], ["here", "share 1"]]
    assert seen == ["here", "share 0"]


@pytest.mark.parametrize("n", [1, 3])
def test_each_number_is_taken_by_one_process(n: int) -> None:
    turns = Turns(n)

    found = in_forks(lambda _: [turns.take() for _ in range(200)], n)

    assert sorted(number for numbers in found for number in numbers) == list(range(200 * n))
    assert all(numbers == sorted(numbers) for numbers in found)


def test_what_a_fork_raises_is_raised_with_its_traceback() -> None:
    def work(share: int) -> None:
        if share == 1:
            raise ValueError("of a fork")

    with pytest.raises(ValueError, match="of a fork") as caught:
        in_forks(work, 2)
    assert "in work" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("methods", "cores", "most", "expected"),
    [
        (["fork", "spawn"], 8, 4, 4),
        (["fork", "spawn"], 2, 4, 2),
        (["fork", "spawn"], None, 4, 1),
        (["spawn"], 8, 4, 1),
    ],
)
def test_number_of_forks(
    methods: list[str],
    cores: int | None,
    most: int,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: methods)
    monkeypatch.setattr("os.cpu_count", lambda: cores)

    assert n_forks(most) == expected
