"""What spar-bench's speed is worth, as ratios within one run: `python -m benchmarks`."""
