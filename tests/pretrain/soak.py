"""Kills a run of two processes at random moments and compares what becomes of it with a run left alone.

    python -m tests.pretrain.soak FOLDER --kills 20 --seed 0

A kill is SIGKILL to all processes, SIGTERM to the launcher, or SIGKILL to one rank; about half of them come
while a checkpoint is being written, the others a few steps after the start. After each, the same command goes
on. At the end, losses and weights must be those of the run that nobody killed, bit by bit.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
from safetensors.torch import load_file

from core.train.logger import read_metrics
from tests.conftest import ROOT, TinyRuns, losses, warm

WAYS = ("all processes", "the launcher", "one rank")
SETTINGS = [
    "deepspeed.zero_stage=2", "training.validate_every_steps=null", "training.save_every_steps=4",
    "training.timeout_minutes=2",
]  # fmt: skip


def main() -> None:
    """Prepare a corpus and a base model in a new folder, and soak."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tiny = TinyRuns(arguments.folder)
    done = warm("pretrain", "--prepare", *tiny.overrides("prepared"))
    assert done.returncode == 0, done.stderr
    soak(tiny, "soak", arguments.kills, arguments.seed)


def soak(tiny: TinyRuns, name: str, kills: int, seed: int) -> Counter[str]:
    """The run `name`, killed so many times; AssertionError where it ends other than `NAME-whole` does."""
    settings = [*SETTINGS, f"training.steps={8 * kills + 12}"]
    whole = tiny.train(f"{name}-whole", *settings, processes=2)
    chance, done = random.Random(seed), Counter[str]()
    for number in range(kills):
        way, in_write = WAYS[number % 3], number // 3 % 2 == number % 2
        if killed := kill_once(tiny, name, settings, way, in_write, chance):
            done[f"{way}, in a checkpoint write" if killed == "write" else way] += 1
        print(f"kill {number + 1} of {kills}: {way}, {killed or 'too late'}", flush=True)
    assert sum(done.values()) == kills, done
    found = tiny.train(name, *settings, processes=2)
    assert [line["step"] for line in found] == [line["step"] for line in whole]
    assert losses(found) == losses(whole)
    mine, theirs = (
        load_file(tiny.folder / run / "model" / "model.safetensors") for run in (name, f"{name}-whole")
    )
    assert all(mine[key].equal(theirs[key]) for key in theirs), "weights differ"
    print(f"{kills} kills ({dict(done)}): {len(found)} losses and all weights are those of the whole run")
    return done


def kill_once(
    tiny: TinyRuns, name: str, settings: list[str], way: str, in_write: bool, chance: random.Random
) -> str:
    """Start the run and kill it; `write` where that was in a checkpoint write, `step` elsewhere, empty where
    it ended before."""
    command = [sys.executable, "-m", "core.launch", "--processes", "2", "-m", "pretrain"]
    folder, wanted = tiny.folder / name, chance.randint(1, 6)
    newest = max((path.name for path in (folder / "checkpoints").glob("step-*")), default="")
    first, started = int(newest.removeprefix("step-") or 0), time.time()
    with (tiny.folder / f"{name}.out").open("a") as out:
        process = subprocess.Popen(
            [*command, *tiny.overrides(name, *settings)], cwd=ROOT, start_new_session=True,
            stdout=out, stderr=out, env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
    family = psutil.Process(process.pid)
    while process.poll() is None:
        assert time.time() < started + 300, "the run does not go on"
        due = _writing(folder, started) if in_write else _steps(folder, started) >= first + wanted
        ranks = [each for each in family.children(recursive=True) if "RANK" in each.environ()] if due else []
        if due:
            time.sleep(chance.random() * 0.02)
            writing = _writing(folder, started)
            if in_write and not writing:
                continue  # this one was over too soon
            _kill(way, family, ranks, chance)
            process.wait(timeout=300)
            return "write" if writing else "step"
        time.sleep(0.002)
    return ""


def _writing(folder: Path, started: float) -> bool:
    """Whether a checkpoint is being written; what an earlier kill left does not count."""
    return any(path.stat().st_ctime > started for path in (folder / "checkpoints").glob(".step-*.partial"))


def _kill(way: str, family: psutil.Process, ranks: list[psutil.Process], chance: random.Random) -> None:
    match way:
        case "all processes":
            for member in [*ranks, family]:
                member.kill()
        case "the launcher":
            family.send_signal(signal.SIGTERM)
        case _:
            chance.choice(ranks).kill()


def _steps(folder: Path, started: float) -> int:
    """The last step that this start of the run has logged."""
    metrics = folder / "metrics.jsonl"
    if not metrics.exists() or metrics.stat().st_mtime < started:
        return 0
    found = read_metrics(folder)
    return int(found[-1]["step"]) if found else 0


if __name__ == "__main__":
    main()
