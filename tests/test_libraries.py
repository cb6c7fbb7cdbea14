"""Versions of libraries."""

import numpy

from spar_bench.libraries import installed_version


def test_version_is_what_the_library_says_itself_and_none_where_there_is_none() -> None:
    assert installed_version("numpy") == numpy.__version__
    assert installed_version("no-such-package-anywhere") is None
