"""Versions of libraries."""

from importlib.metadata import version

from spar_bench.libraries import installed_version


def test_version_is_that_of_the_distribution_and_none_where_there_is_none() -> None:
    assert installed_version("numpy") == version("numpy")
    assert installed_version("no-such-package-anywhere") is None
