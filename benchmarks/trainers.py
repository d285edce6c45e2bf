"""Continued pretraining and tuning in turns with LLaMA-Factory and axolotl: speed, memory, held-out loss.

    python -m benchmarks.trainers [--rounds 20] [--steps 1] [--seeds 4] [--only pretrain] [--quick]
    python -m benchmarks.trainers --base models/smollm2-135m --patents DIR --only pretrain --seeds 0

A LLaMA of 9 million random weights, fp32 on a CPU, rows of 2,048 tokens, one row a step, the same constant
learning rate (a decay to zero ends one step earlier in ours than in transformers). Each program runs as its
user would start it, in a process of its own, and takes STEPS steps while the others wait; one round is a turn
of each, in an order that changes, and the first two rounds do not count.

`pretrain`  `python -m pretrain` with its best-fit packing, on synthetic patents. `llamafactory`: `stage: pt`,
            `packing`: all documents are joined, nothing is padded, and attention goes from one into the next.
            `axolotl`: `type: completion`, `sample_packing`
`sft`       `python -m sft` on general chats and patent tasks, in one template. `llamafactory`: `stage: sft`,
            `packing`: chats see each other; `llamafactory_neat`: `neat_packing`: they do not. `axolotl`:
            `type: alpaca`, `sample_packing`

Each program has one thread: several that wait for each other measure what else runs on the machine. Tokens
are labels; `…_fill` is the share of positions that hold text. A `…_cpu_ratio` is the median over the rounds
of theirs to our CPU seconds, times the labels of our step to those of theirs, with a 95% interval (bootstrap
over rounds); `…_total_cpu_ratio` is that of all rounds together, which differ in how long their documents
are; `…_wall_ratio` is the median by the clock. `…_products_cpu_us`, `…_attention_cpu_us` and
`…_other_cpu_us` are CPU microseconds per token of matrix products, of attention and of everything else
(torch.profiler, five steps after the rounds). Peak memory leaves out imports. The loss is that of
saved models on held-out documents or answers, each alone, by transformers: the mean over SEEDS runs of
LOSS_STEPS steps outside the turns, which differ in the order of the data. A `…_loss_difference` is ours less
theirs, with a 95% interval (Welch): negative is better.

`--base` trains a model of yours, in bf16 as each program does it, `--patents` on raw patents of yours.
axolotl, which refuses bf16 on a CPU, is then left out.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.peer import WITHOUT, Peer, Process, versions_of
from benchmarks.result import print_result
from benchmarks.train import SHAPES, command

LENGTH = 2048
PACKAGES = ("torch", "transformers", "deepspeed")
PEERS: dict[str, dict[str, dict[str, Any]]] = {
    "pretrain": {
        "llamafactory": {"stage": "pt", "packing": True},
        "axolotl": {"type": "completion", "field": "text"},
    },
    "sft": {
        "llamafactory": {"stage": "sft", "template": "alpaca", "packing": True},
        "llamafactory_neat": {"stage": "sft", "template": "alpaca", "neat_packing": True},
        "axolotl": {"type": "alpaca"},
    },
}
"""Variants of the peers by stage, and their settings: axolotl's are those of its data."""
WARM_UP, PROFILED, HELD_OUT = 2, 5, 60
ALPACA = (
    "{{ 'Below is an instruction that describes a task. Write a response that appropriately completes the"
    " request.\n\n' }}{% for message in messages %}{% if message.role == 'user' %}{{ '### Instruction:\n'"
    " + message.content + '\n\n### Response:\n' }}{% else %}{{ message.content + eos_token + '\n\n' }}"
    "{% endif %}{% endfor %}"
)
"""LLaMA-Factory's template of that name, so that all train on the same tokens; axolotl's ends with the end
token."""
RATE, BETAS, DECAY = 1e-3, (0.9, 0.95), 0.1


class Run(NamedTuple):
    """What is known of a program: seconds of each turn, its counts after the last, CPU seconds per token by
    kind of operation, held-out losses of other runs."""

    seconds: list[float]
    cpu_seconds: list[float]
    last: dict[str, float]
    kinds: dict[str, float]
    losses: list[float]


class Estimate(NamedTuple):
    """A ratio or a difference, with a 95% interval."""

    middle: float
    low: float
    high: float


def main() -> None:
    """Prepare, run all stages, print the figures and the JSON line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trainers", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=20, help="rounds that count (default 20)")
    parser.add_argument("--steps", type=int, default=1, help="steps of a turn (default 1)")
    parser.add_argument("--only", choices=PEERS, help="one stage")
    parser.add_argument("--seeds", type=int, default=4, help="runs of which losses are the mean (default 4)")
    parser.add_argument("--loss-steps", type=int, default=20, help="steps of these runs (default 20)")
    parser.add_argument("--base", type=Path, metavar="DIR", help="a model to train, in bf16")
    parser.add_argument("--patents", type=Path, metavar="DIR", help="raw patents; default: synthetic ones")
    parser.add_argument("--quick", action="store_true", help="3 rounds, 1 seed")
    parser.add_argument(WITHOUT, dest="without", action="store_true", help="ours alone")
    arguments = parser.parse_args()
    rounds, seeds = (3, 1) if arguments.quick else (arguments.rounds, arguments.seeds)
    os.environ["OMP_NUM_THREADS"] = "1"
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(folder, arguments.base, arguments.patents)
        for stage in [arguments.only] if arguments.only else PEERS:
            peers = [] if arguments.without else list(PEERS[stage])
            if arguments.base and peers:
                peers.remove("axolotl")
            runs = take_turns(folder, stage, peers, rounds, arguments.steps)
            for seed in range(1, seeds + 1):
                for name, run in runs.items():
                    run.losses.append(trained_loss(folder, stage, name, arguments.loss_steps, seed))
            results |= figures(stage, runs)
    print_result("trainers", PACKAGES, results, peer_versions(peers), table=True)


def peer_versions(peers: Iterable[str]) -> dict[str, str]:
    """The versions of peers, and of what they run on."""
    found: dict[str, str] = {}
    for peer in dict.fromkeys(name.partition("_")[0] for name in peers):
        for name, version in versions_of(peer).items():
            if name in (peer, "transformers"):
                found[name if name == peer else f"{name} ({peer})"] = version
    return found


def prepare(folder: Path, base: Path | None, patents: Path | None) -> None:
    """The corpus, its tokenizer, the model, and chats; training text and held-out text apart."""
    data = data_of(folder, base, patents)
    command("data", "run", *(f"{key}={json.dumps(value)}" for key, value in data.items()))
    corpus = folder / "corpus"
    command("data", "build", f"corpus={corpus / 'decontaminate'}", f"output_dir={folder / 'tasks'}")
    command("data", "everyday", "--chats", "2000", "--output", str(folder / "everyday"))
    tokenizer = prepare_model(folder / "base", base or corpus / "tokenizer", random=base is None)
    settings = {"data": data, "padding": tokenizer.pad_token_id, "precision": "bf16" if base else "fp32"}
    (folder / "settings.json").write_text(json.dumps(settings), "utf-8")
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in documents(corpus / "pack/train")]
    write(folder / "texts.jsonl", [{"text": text} for text in texts])
    files = (folder / "tasks/train.jsonl", folder / "everyday/chats.jsonl")
    rows = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    random.Random(0).shuffle(rows)
    chats = [
        {"instruction": "\n".join(filter(None, (row["instruction"], row["input"]))), "output": row["output"]}
        for row in rows
    ]
    write(folder / "chats.jsonl", chats[HELD_OUT:])
    write(folder / "held-out.jsonl", chats[:HELD_OUT])


def prepare_model(folder: Path, source: Path, *, random: bool) -> Any:
    """Write the model of `source`, or one of random weights with its tokenizer; returns the tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    from core.model.loading import load_tokenizer

    if random:
        torch.manual_seed(0)
        shape = LlamaConfig(**SHAPES["small"].architecture, max_position_embeddings=LENGTH,
                            bos_token_id=1, eos_token_id=2)  # fmt: skip
        LlamaForCausalLM(shape).save_pretrained(folder)
    else:
        AutoModelForCausalLM.from_pretrained(source).save_pretrained(folder)
    tokenizer = load_tokenizer(str(source))
    tokenizer.chat_template = ALPACA
    tokenizer.save_pretrained(folder)
    return tokenizer


def data_of(folder: Path, base: Path | None, patents: Path | None) -> dict[str, Any]:
    """The configuration of the corpus."""
    vocabulary_size = SHAPES["small"].architecture["vocab_size"]
    return {
        "output_dir": str(folder / "corpus"),
        "tokenizer": {"path": str(base.absolute())} if base else {"vocabulary_size": vocabulary_size},
        "pack": {"validation_share": 0.06},
    } | ({"sources": [{"path": str(patents.absolute())}]} if patents else {"synthetic": {"inventions": 400}})


def documents(name: Path) -> list[Any]:
    """The token ids of every document of a split."""
    from data.packing.indexed_dataset import Documents

    found = Documents(name)
    return [found[i] for i in range(len(found))]


def write(file: Path, rows: list[dict[str, str]]) -> None:
    """Write JSON lines."""
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def take_turns(folder: Path, stage: str, peers: Iterable[str], rounds: int, steps: int) -> dict[str, Run]:
    """Run ours and the peers; the first rounds warm up, steps after the last are profiled, and one more is
    nobody's turn."""
    total = (rounds + WARM_UP) * steps + PROFILED + 1
    programs = {name: begin(folder, stage, name, total, steps, seed=0) for name in ("ours", *peers)}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
    names = list(programs)
    for number in range(rounds + WARM_UP):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            taken[name].append(programs[name].ask({"steps": steps}))
        times = ", ".join(f"{name} {each[-1]['cpu_seconds']:.2f} s" for name, each in taken.items())
        print(f"{stage}, round {number + 1}, CPU: {times}", flush=True)
    found: dict[str, Run] = {}
    for name, program in programs.items():
        profiled = program.ask({"steps": PROFILED, "profile": True})
        program.ask({"steps": 0})
        program.close()
        turns = taken[name]
        rows = (rounds + WARM_UP) * steps
        assert turns[-1]["read"] <= rows * LENGTH, f"{name} counts rows that it has not trained on"
        seconds, cpu_seconds = ([turn[key] for turn in turns[WARM_UP:]] for key in ("seconds", "cpu_seconds"))
        kinds = profiled["kinds"] | {"other": profiled["cpu_seconds"] - sum(profiled["kinds"].values())}
        tokens = profiled["trained"] - turns[-1]["trained"]
        found[name] = Run(seconds, cpu_seconds, turns[-1], {k: s / tokens for k, s in kinds.items()}, [])
    return found


def begin(folder: Path, stage: str, name: str, total: int, steps: int, *, seed: int) -> Process:
    """A program that is to take `total` steps, in turns of `steps`; it waits for the first."""
    output = output_of(folder, stage, name, seed)
    if name == "ours":
        program = Process(name, sys.executable, "-m", "benchmarks.peers.ours")
        program.ask(ours(folder, stage, output, total, steps, seed))
        return program
    peer, _, _ = name.partition("_")
    program = Peer(peer, f"{peer}.py")
    settings = {"llamafactory": llamafactory, "axolotl": axolotl}[peer]
    program.ask(settings(folder, PEERS[stage][name], output, total, steps) | {"seed": seed})
    return program


def output_of(folder: Path, stage: str, name: str, seed: int) -> Path:
    """The folder that a program writes."""
    return folder / f"{stage}-{name}-{seed}"


def trained_loss(folder: Path, stage: str, name: str, steps: int, seed: int) -> float:
    """The held-out loss after a run that waits for nobody."""
    program = begin(folder, stage, name, steps, steps, seed=seed)
    program.ask({"steps": steps + 1})
    program.close()
    found = held_out_loss(folder, stage, name, seed)
    print(f"{stage}, seed {seed}, held-out loss: {name} {found:.4f}", flush=True)
    return found


def ours(folder: Path, stage: str, output: Path, total: int, steps: int, seed: int) -> dict[str, Any]:
    """Write the configuration of our command and make its data; the settings for benchmarks/peers/ours.py."""
    sources = {"chats.jsonl": "train", "held-out.jsonl": "validation"}
    settings = json.loads((folder / "settings.json").read_text("utf-8"))
    data = settings["data"] if stage == "pretrain" else {
        "output_dir": str(folder / "chats"), "max_tokens": LENGTH,
        "sources": [{"path": str(folder / name), "side": side} for name, side in sources.items()],
    }  # fmt: skip
    config = {
        "run_dir": str(output), "model": {"path": str(folder / "base")}, "data": data, "publish": "last",
        "validation_tokens": LENGTH,
        "training": {"steps": total, "global_batch_size": 1, "validate_every_steps": None,
                     "seed": seed, "precision": settings["precision"]},
        "optimizer": {"learning_rate": RATE, "betas": BETAS, "weight_decay": DECAY},
        "schedule": {"kind": "constant", "warmup_share": 0}, "deepspeed": {"zero_stage": 1},
        "logging": {"every_steps": steps, "tensorboard": False},
    } | ({"sequence_length": LENGTH} if stage == "pretrain" else {})  # fmt: skip
    file = folder / f"{stage}.json"
    file.write_text(json.dumps(config), "utf-8")
    command(stage, "--config", str(file), "--prepare")
    return {
        "command": stage,
        "config": str(file),
        "padding": settings["padding"] if stage == "sft" else None,
    }


def llamafactory(
    folder: Path, settings: dict[str, Any], output: Path, total: int, steps: int
) -> dict[str, Any]:
    """LLaMA-Factory's settings: what our configuration says, and else its defaults."""
    columns: dict[str, dict[str, str]] = {
        "texts": {"prompt": "text"}, "chats": {"prompt": "instruction", "response": "output"}
    }  # fmt: skip
    described = {name: {"file_name": f"{name}.jsonl", "columns": keys} for name, keys in columns.items()}
    (folder / "dataset_info.json").write_text(json.dumps(described), "utf-8")
    return settings | {
        "model_name_or_path": str(folder / "base"), "output_dir": str(output), "do_train": True,
        "dataset": "texts" if settings["stage"] == "pt" else "chats", "dataset_dir": str(folder),
        "finetuning_type": "full", "cutoff_len": LENGTH, "use_cpu": True, "max_steps": total,
        "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": RATE,
        "lr_scheduler_type": "constant", "adam_beta1": BETAS[0], "adam_beta2": BETAS[1],
        "weight_decay": DECAY, "disable_gradient_checkpointing": True, "logging_steps": steps,
        "save_strategy": "no", "report_to": "none", "overwrite_cache": True,
        "bf16": precision(folder) == "bf16",
    }  # fmt: skip


def axolotl(folder: Path, settings: dict[str, Any], output: Path, total: int, steps: int) -> dict[str, Any]:
    """axolotl's settings: what our configuration says, and else its defaults."""
    file = folder / ("texts.jsonl" if settings["type"] == "completion" else "chats.jsonl")
    return {
        "base_model": str(folder / "base"), "output_dir": str(output), "sequence_len": LENGTH,
        "datasets": [{"path": str(file), "ds_type": "json"} | settings], "sample_packing": True,
        "dataset_prepared_path": str(folder / f"axolotl-{settings['type']}"), "max_steps": total,
        "num_epochs": 1, "micro_batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": RATE,
        "optimizer": "adamw_torch_fused", "lr_scheduler": "constant", "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1], "weight_decay": DECAY, "max_grad_norm": 1.0,
        "bf16": precision(folder) == "bf16", "fp16": False, "tf32": False, "attn_implementation": "sdpa",
        "gradient_checkpointing": False, "logging_steps": steps, "save_strategy": "no",
    }  # fmt: skip


def precision(folder: Path) -> str:
    """In what the model is trained."""
    found: str = json.loads((folder / "settings.json").read_text("utf-8"))["precision"]
    return found


def held_out(folder: Path, stage: str) -> list[tuple[Any, Any]]:
    """Held-out documents, or chats: token ids and which of them are trained on."""
    if stage == "pretrain":
        found = documents(folder / "corpus/pack/validation")[:HELD_OUT]
        return [(ids, np.ones(len(ids), bool)) for ids in found]
    marks = np.fromfile(folder / "chats/validation.trained.bin", np.uint8).astype(bool)
    found = documents(folder / "chats/validation")
    return list(zip(found, np.split(marks, np.cumsum([len(ids) for ids in found])[:-1]), strict=True))


def held_out_loss(folder: Path, stage: str, name: str, seed: int) -> float:
    """The mean loss of a saved model on the trained tokens of held-out text, each document alone."""
    import torch
    from transformers import AutoModelForCausalLM

    output = output_of(folder, stage, name, seed)
    model = output / "model" if name == "ours" else output
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for ids, trained in held_out(folder, stage):
            row = torch.from_numpy(ids.astype(np.int64))[None]
            each = torch.nn.functional.cross_entropy(loaded(row).logits[0, :-1], row[0, 1:], reduction="none")
            chosen = each[torch.from_numpy(trained[1:])]
            total, tokens = total + float(chosen.sum()), tokens + len(chosen)
    return total / tokens


def figures(stage: str, runs: dict[str, Run]) -> dict[str, float]:
    """The results of a stage by key."""
    results: dict[str, float] = {}
    ours = runs["ours"]
    for name, run in runs.items():
        key = stage if name == "ours" else f"{stage}_{name}"
        turn = run.last["trained"] / (len(run.seconds) + WARM_UP)
        results |= {
            f"{key}_tokens_per_cpu_s": turn / statistics.median(run.cpu_seconds),
            f"{key}_fill": run.last["filled"] / run.last["read"],
            f"{key}_peak_mib": run.last["peak_mib"],
        }
        results |= {f"{key}_{kind}_cpu_us": seconds * 1e6 for kind, seconds in run.kinds.items()}
        if run.losses:
            results[f"{key}_loss"] = statistics.mean(run.losses)
        if name != "ours":
            tokens = ours.last["trained"] / run.last["trained"]
            found = {"wall": ratio(ours.seconds, run.seconds, tokens).middle}
            for which, of in (("cpu", of_rounds), ("total_cpu", of_all)):
                middle, low, high = ratio(ours.cpu_seconds, run.cpu_seconds, tokens, of)
                found |= {which: middle, f"{which}_low": low, f"{which}_high": high}
            results |= {f"{stage}_vs_{name}_{key}_ratio": value for key, value in found.items()}
            if len(ours.losses) > 1:
                less = difference(ours.losses, run.losses)._asdict()
                results |= {
                    f"{stage}_vs_{name}_loss_difference{'' if end == 'middle' else f'_{end}'}": value
                    for end, value in less.items()
                }
    return results


def of_rounds(seconds: Any) -> Any:
    """Seconds of theirs and of ours (2, ..., rounds): the median over the rounds of their ratio."""
    return np.median(seconds[0] / seconds[1], axis=-1)


def of_all(seconds: Any) -> Any:
    """The ratio of all rounds together."""
    return seconds[0].sum(-1) / seconds[1].sum(-1)


def ratio(
    ours: list[float], theirs: list[float], tokens: float, of: Any = of_rounds, draws: int = 10_000
) -> Estimate:
    """How many times as fast ours is, by the seconds of each round; `tokens` is ours per token of theirs."""
    seconds = np.array([theirs, ours])
    drawn = np.random.default_rng(0).integers(len(ours), size=(draws, len(ours)))
    low, high = np.quantile(of(seconds[:, drawn]), (0.025, 0.975))
    return Estimate(*(float(each) * tokens for each in (of(seconds), low, high)))


def difference(ours: list[float], theirs: list[float]) -> Estimate:
    """The mean of ours less the mean of theirs; the interval is Welch's."""
    from scipy.stats import ttest_ind

    low, high = ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    return Estimate(float(np.mean(ours) - np.mean(theirs)), float(low), float(high))


if __name__ == "__main__":
    main()
