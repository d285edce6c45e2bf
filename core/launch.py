"""Start a room's module as one process a GPU (or, on a CPU, one process, or as many as asked for).

    python -m core.launch [--processes N] [TORCHRUN OPTION ...] -m MODULE [ARGUMENT ...]

The launcher is torchrun; this adds three things. One process is run without it. Each process of a CPU run
gets its share of the cores, where torchrun gives it one thread. And a rank that ends with a message for the
user (exit code 2) ends the whole run with that code, where torchrun would print a traceback of its own and
return 1.
"""

import os
import runpy
import sys


def main(arguments: list[str]) -> int:
    """Run `arguments` as described above; returns the exit code."""
    processes = None
    if arguments[:1] == ["--processes"]:
        processes, arguments = int(arguments[1]) if arguments[1] else None, arguments[2:]
    if "-m" not in arguments:
        print(__doc__)
        return 2
    import torch

    processes = processes or max(1, torch.cuda.device_count())
    module = arguments.index("-m")
    if processes == 1 and module == 0:
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return 0
    if not torch.cuda.is_available():
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "900")  # seconds for a checkpoint after a signal
    return _torchrun([f"--nproc-per-node={processes}", *arguments])


def _torchrun(arguments: list[str]) -> int:
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    if not any(option.startswith(("--nnodes", "--rdzv", "--master")) for option in arguments):
        arguments = ["--standalone", *arguments]
    try:
        torchrun(arguments)
    except ChildFailedError as error:
        rank, failure = min(error.failures.items(), key=lambda item: item[1].timestamp)
        if failure.exitcode != 2:
            print(
                f"error: rank {rank} ended with exit code {failure.exitcode}; its own words stand above.",
                file=sys.stderr,
            )
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as error:
        return 128 + error.sigval
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
