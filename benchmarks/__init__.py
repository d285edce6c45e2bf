"""Speed and memory of each room, beside the peers in one run: `python -m benchmarks.NAME [--quick]`."""
