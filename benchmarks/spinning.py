"""Training on a CPU with OpenMP threads that spin while they wait (OpenMP's default), and that sleep.

    python -m benchmarks.spinning [--quick]

A small transformer's steps on all cores, in a process of its own: with OpenMP's default, with
`OMP_WAIT_POLICY` passive, which this program sets, and with a short spin. The ways alternate, on a quiet
machine and beside one busy process for each core. Numbers are medians of the processes' median steps.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.result import print_result

ROOT = Path(__file__).parent.parent
WAYS = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "short": {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"},
}
WIDTH = 256
BUSY = """
import signal
from core.launch import end_with_parent
end_with_parent(signal.SIGKILL)
while True: pass
"""


def main() -> None:
    """Measure all ways alternately and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under 4 minutes")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(steps()))
        return
    results = measure(2 if given.quick else 5)
    print_result("spinning", ("torch",), results, table=True)


def measure(rounds: int) -> dict[str, float]:
    """Median seconds of a step of each way, quiet and busy, and their ratios to the default's."""
    cores = len(os.sched_getaffinity(0))
    results: dict[str, float] = {}
    for place in ("quiet", "busy"):
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        others = [
            subprocess.Popen([sys.executable, "-c", BUSY], cwd=ROOT) for _ in range(cores * (place == "busy"))
        ]
        try:
            for _ in range(rounds):
                for way, variables in WAYS.items():
                    found[way].append(one(variables, cores))
                    print(f"{place} {way}: {found[way][-1]:.3f} s a step", flush=True)
        finally:
            for other in others:
                other.kill()
        middle = {way: statistics.median(values) for way, values in found.items()}
        results |= {f"{place}_{way}_step_s": value for way, value in middle.items()}
        results |= {
            f"{place}_{way}_ratio": middle[way] / middle["default"] for way in WAYS if way != "default"
        }
    return results


def one(variables: dict[str, str], cores: int) -> float:
    """The median step of a process with these variables."""
    rest = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.spinning", "--worker"], cwd=ROOT, check=True, text=True,
        env=rest | {"OMP_NUM_THREADS": str(cores)} | variables, capture_output=True,
    )  # fmt: skip
    return float(json.loads(done.stdout))


def steps() -> float:
    """Median seconds of a training step of a small transformer, without the first ones."""
    import torch

    from benchmarks.checkpoint import timed

    layer = torch.nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    inputs = torch.randn(2, 256, WIDTH)

    def step() -> None:
        model(inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return statistics.median([timed(step) for _ in range(14)][4:])


if __name__ == "__main__":
    main()
