"""Speed and memory of each room, compared with peers in one run: `python -m benchmarks.NAME [--quick]`."""
