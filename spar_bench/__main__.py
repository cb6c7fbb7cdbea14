"""`python -m spar_bench` is `spar-bench`."""

from spar_bench.cli import main

main(prog_name="spar-bench")
