"""Evaluation runs of studies whose truth is known, written as `python -m eval run` writes them."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from eval.runner import finish
from eval.sample import EvalSample
from tests.eval.models.tiny import write_jsonl
from tools.study.results import Arm, Axis, Study, Training

QUESTIONS = 60
BYTES = 200
"""Of each text of which bits per byte are measured."""


def write_run(folder: Path, right: Sequence[bool], bits: Mapping[str, Sequence[float]]) -> Path:
    """A run with answers to questions of the task `title`, and texts with these bits per byte by task."""
    samples = [
        EvalSample(
            task="title", id=f"q{i}", prediction="yes" if each else "no", reference="yes",
            metrics=("exact-match",),
        )
        for i, each in enumerate(right)
    ]  # fmt: skip
    for task, values in bits.items():
        samples += [
            EvalSample(
                task=task, id=f"d{i}", prediction="", reference="x" * BYTES, metrics=("bits-per-byte",),
                measured={"text_nats": -each * BYTES * math.log(2), "text_tokens": BYTES / 4},
            )
            for i, each in enumerate(values)
        ]  # fmt: skip
    lines = [sample.model_dump(mode="json", exclude_defaults=True) | {"prediction": sample.prediction}
             for sample in samples]  # fmt: skip
    write_jsonl(folder / "predictions.jsonl", *lines)
    finish(folder, {"model": "made"}, {})
    return folder


def worth_study(root: Path, seeds: int = 3, gain: float = 2.0) -> Study:
    """With continued pretraining examples count `gain` times; one more task has its bits per byte."""
    axes = (
        Axis("pretraining", ("without", "with")),
        Axis("examples", ("50", "100", "200", "400", "all"), (50, 100, 200, 400, 800)),
    )
    draw = np.random.default_rng(0)
    asked, luck = draw.normal(0, 0.5, QUESTIONS), draw.normal(0, 1, (seeds, QUESTIONS))
    texts, of_seed = draw.normal(0, 0.05, QUESTIONS), draw.normal(0, 0.05, seeds)
    arms = []
    for of in axes[0].levels:
        for level, number in zip(axes[1].levels, axes[1].numbers or (), strict=True):
            counted = number * (gain if of == "with" else 1)
            logits = 1.2 * math.log(counted / 300) + asked + of_seed[:, None]
            right = logits + luck + draw.normal(0, 0.5, luck.shape) > 0
            bits = 1.2 - 0.05 * math.log(counted) + texts + 0.05 * of_seed[:, None]
            bits = bits + draw.normal(0, 0.005, bits.shape)
            trainings = tuple(
                Training(
                    seed,
                    (write_run(root / f"{of}-{level}-{seed}", right[seed], {"text-domain": bits[seed]}),),
                    60.0 + number, 90.0, int(1000 * number),
                )
                for seed in range(seeds)
            )  # fmt: skip
            arms.append(Arm({"pretraining": of, "examples": level}, trainings))
    decided = {"learning rate 1e-4": "validation"}
    return Study("labels", "Labels with and without continued pretraining", axes, tuple(arms), decided, {})


def replay_study(root: Path, shares: Sequence[str], losses: Mapping[str, Callable[[float], float]]) -> Study:
    """Bits per byte of `text-domain` and `text-general` at each replay share, with 4 seeds."""
    draw = np.random.default_rng(0)
    texts = {task: draw.normal(0, 0.05, QUESTIONS) for task in losses}
    of_seed = draw.normal(0, 0.01, 4)
    arms = []
    for share in shares:
        number = float(share.removesuffix("%")) / 100
        trainings = []
        for seed in range(4):
            bits = {
                task: loss(number) + texts[task] + of_seed[seed] + draw.normal(0, 0.002)
                for task, loss in losses.items()
            }
            run = write_run(root / f"{share.removesuffix('%')}-{seed}", [], bits)
            trainings.append(Training(seed, (run,), 1.0, 2.0, None))
        arms.append(Arm({"replay": share}, tuple(trainings)))
    law = {"domain": "text-domain", "general": "text-general"}
    axes = (Axis("replay", tuple(shares)),)
    return Study("replay", "How much to replay", axes, tuple(arms), {}, {}, law)
