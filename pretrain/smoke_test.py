"""Ten minutes on a user's own node, before the long run: does it train there as one process does?

    make smoke GPUS=8                                    in runs/smoke; without GPUS all cards, or 2 on a CPU
    python -m pretrain smoke --processes 2 --folder DIR [key=value]

A small model trains on one process, then on all with ZeRO 1, 2 and 3, then with each row on two of them, then
on half of them from what all saved: the losses must be those of one process. A larger model tells tokens per
second, and the memory of a GPU beside the estimate. Every run writes to FOLDER/NAME and what it said to
FOLDER/NAME.txt; overrides are given to all of them. The exit code is 1 where a check fails.
"""

import argparse
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple

from core.errors import UserError

STEPS = 8
TOLERANCE = 1e-3
"""Largest relative difference of two losses; fp32 sums in another order stay far below it."""
MEMORY_TOLERANCE = 0.1
"""Largest relative difference of measured and estimated memory."""
SHAPE = (
    "{{model_type: llama, hidden_size: {0}, intermediate_size: {1}, num_hidden_layers: {2},"
    " num_attention_heads: {3}, num_key_value_heads: {3}, max_position_embeddings: 2048}}"
)
SMALL, LARGE = SHAPE.format(64, 176, 2, 2), SHAPE.format(1024, 2816, 16, 16)
LENGTHS = {"cpu": 128, "cuda": 2048}


class Check(NamedTuple):
    """A line of the table."""

    name: str
    verdict: Literal["pass", "FAIL", "-"]
    found: str


class Node(NamedTuple):
    """Where the runs go and what they share."""

    folder: Path
    processes: int
    device: str
    overrides: list[str]


def main(arguments: list[str]) -> int:
    """Run all checks, print the table; 1 where one failed."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrain smoke",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--processes", type=int, metavar="N", help="GPUs of this host")
    parser.add_argument("--folder", type=Path, default=Path("runs/smoke"), help="made anew each time")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of every run")
    given = parser.parse_intermixed_args(arguments)
    import torch

    gpus = torch.cuda.device_count()
    processes = given.processes or gpus or 2
    if processes < 1 or (gpus and processes > gpus):
        raise UserError(f"--processes {processes}: this host has {gpus} GPUs. Give 1 to {gpus}.")
    if given.folder.exists() and not (given.folder / ".smoke").exists():
        raise UserError(f"--folder {given.folder} holds something else. Give a new folder.")
    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir(parents=True)
    (given.folder / ".smoke").touch()
    node = Node(given.folder, processes, "cuda" if gpus else "cpu", given.overrides)
    return report(checks(node))


def checks(node: Node) -> list[Check]:
    """All checks, in order; each run says on stderr that it begins."""
    half = max(1, node.processes // 2)
    samples = 2 * math.lcm(node.processes, half)
    shared = [
        "training.precision=fp32", f"training.global_batch_size={samples}", "training.micro_batch_size=1",
        f"sequence_length={LENGTHS[node.device]}", "schedule.kind=constant", "schedule.warmup_steps=0",
    ]  # fmt: skip
    found = train(node, "one-process", 1, *shared, "--prepare", f"model.architecture={SMALL}")
    if isinstance(found, str):
        return [Check("one process", "FAIL", found)]
    table = [Check("one process", "pass", f"loss {found[0]['loss']:.4f} to {found[-1]['loss']:.4f}")]
    reference = [line["loss"] for line in found]
    base = [f"model.path={node.folder / 'one-process/base'}", "model.architecture=null"]
    for stage in (1, 2, 3):
        name = f"zero-{stage}"
        found = train(node, name, node.processes, *shared, *base, f"deepspeed.zero_stage={stage}")
        table.append(compared(f"{node.processes} processes, ZeRO {stage}", found, reference))
    if node.processes > 1:
        pairs, two = 2 * (node.processes // 2), "training.sequence_parallel_size=2"
        found = train(node, "shared-rows", pairs, *shared, *base, "deepspeed.zero_stage=2", two)
        table.append(compared(f"{pairs} processes, 2 share a row", found, reference))
    resuming = [*shared, *base, "deepspeed.zero_stage=2"]
    found = train(node, "resumed", node.processes, *resuming, f"training.steps={STEPS // 2}")
    if not isinstance(found, str):
        found = train(node, "resumed", half, *resuming)
    table.append(compared(f"saved on {node.processes}, resumed on {half}", found, reference))
    return [*table, *measure(node)]


def measure(node: Node) -> list[Check]:
    """Tokens per second of one process and of all, and memory beside the estimate; a GPU in bf16."""
    gpu = node.device == "cuda"
    precision, length = ("bf16", 2048) if gpu else ("fp32", 128)
    settings = [
        f"training.precision={precision}", f"sequence_length={length}", "deepspeed.zero_stage=2",
        "training.micro_batch_size=2", f"training.steps={30 if gpu else STEPS}",
        f"logging.every_steps={10 if gpu else 2}",
    ]  # fmt: skip
    shape = LARGE if gpu else SMALL
    alone = train(
        node,
        "speed-1",
        1,
        *settings,
        "training.global_batch_size=2",
        "--prepare",
        f"model.architecture={shape}",
    )
    if isinstance(alone, str):
        return [Check("speed", "FAIL", alone)]
    base = [f"model.path={node.folder / 'speed-1/base'}", "model.architecture=null"]
    together = [*settings, *base, f"training.global_batch_size={2 * node.processes}"]
    found = train(node, "speed", node.processes, *together)
    if isinstance(found, str):
        return [Check("speed", "FAIL", found)]
    one, all_of_them = alone[-1]["tokens_per_s"], found[-1]["tokens_per_s"]
    words = f"{all_of_them:,.0f} tokens/s on {node.processes}, {one:,.0f} on 1"
    words += f": {all_of_them / one / node.processes:.0%} of even scaling"
    return [Check("speed", "-", words), memory(node, together, found[-1]["peak_memory_mib"])]


def memory(node: Node, overrides: list[str], measured_mib: float) -> Check:
    """The peak of rank 0's GPU beside the estimate; a CPU has no such figure."""
    if node.device == "cpu":
        return Check("memory", "-", f"{measured_mib:,.0f} MiB resident; the estimate is of a GPU")
    from core.config.loader import load
    from core.model.memory_estimate import estimate
    from pretrain.config import PretrainConfig
    from pretrain.estimate import read_architecture

    config = load(PretrainConfig, Path("configs/pretrain/tiny.yaml"), [*common(node, "speed"), *overrides])
    expected_mib = estimate(
        config.model, read_architecture(config), config.deepspeed, processes=node.processes,
        batch=config.training.micro_batch_size, length=config.sequence_length, bf16=True,
        micro_batches=config.training.accumulation(node.processes),
        parts=config.training.sequence_parallel_size,
    ).total / 2**20  # fmt: skip
    difference = measured_mib / expected_mib - 1
    words = f"{measured_mib:,.0f} MiB measured, {expected_mib:,.0f} estimated ({difference:+.1%})"
    return Check("memory", "pass" if abs(difference) <= MEMORY_TOLERANCE else "FAIL", words)


def compared(name: str, found: list[dict[str, Any]] | str, reference: list[float]) -> Check:
    """Whether the losses are those of one process."""
    if isinstance(found, str):
        return Check(name, "FAIL", found)
    losses = [line["loss"] for line in found]
    if len(losses) != len(reference):
        return Check(name, "FAIL", f"{len(losses)} steps were logged, not {len(reference)}")
    worst = max(abs(ours / theirs - 1) for ours, theirs in zip(losses, reference, strict=True))
    verdict: Literal["pass", "FAIL"] = "pass" if worst <= TOLERANCE else "FAIL"
    return Check(name, verdict, f"losses differ by {worst:.1e} from those of one process")


def train(node: Node, name: str, processes: int, *settings: str) -> list[dict[str, Any]] | str:
    """The metrics of a run, or where it failed and its last words; `--prepare` makes corpus and base too."""
    from core.train.logger import read_metrics

    print(f"{name}: {processes} process{'es'[: 2 * (processes > 1)]} …", file=sys.stderr, flush=True)
    said = node.folder / f"{name}.txt"
    overrides = [*common(node, name), *(each for each in settings if each != "--prepare"), *node.overrides]
    commands = [["pretrain", "--prepare", *overrides]] if "--prepare" in settings else []
    commands.append(["core.launch", "--processes", str(processes), "-m", "pretrain", *overrides])
    with said.open("a", encoding="utf-8") as output:
        for command in commands:
            done = subprocess.run(
                [sys.executable, "-m", *command], stdout=output, stderr=subprocess.STDOUT, check=False,
                env={**os.environ, "OMP_NUM_THREADS": "1"} if node.device == "cpu" else None,
            )  # fmt: skip
            if done.returncode:
                lines = said.read_text("utf-8", errors="replace").strip().splitlines()
                return f"exit code {done.returncode}, see {said}: {lines[-1] if lines else ''}"
    return read_metrics(node.folder / name)


def common(node: Node, name: str) -> list[str]:
    """What all runs are told."""
    return [
        f"run_dir={node.folder / name}", f"data.output_dir={node.folder / 'corpus'}", "model.path=null",
        "data.synthetic.inventions=300", "data.tokenizer.vocabulary_size=2048", f"training.steps={STEPS}",
        "training.validate_every_steps=null", "training.save_every_steps=null", "logging.every_steps=1",
        "logging.tensorboard=false",
    ]  # fmt: skip


def report(table: list[Check]) -> int:
    """Print the table; 1 where a check failed, else 0."""
    width = max(len(check.name) for check in table)
    for check in table:
        print(f"{check.verdict:>4}  {check.name:<{width}}  {check.found}")
    return int(any(check.verdict == "FAIL" for check in table))
