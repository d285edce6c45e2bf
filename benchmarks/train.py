"""Training speed and peak memory, compared with Hugging Face's Trainer with DeepSpeed and TRL's packing.

    python -m benchmarks.train [--quick] [--patents DIR]       a small LLaMA on a CPU, LLaMA-7B on a GPU
    python -m benchmarks.train --shape llama-7b --checkpointing none --compile

One LLaMA with random weights, the same documents and settings, ZeRO 1; variants alternate, each in its own
process. `equal`: rows of equal length, one document each. `packed`, `concat`, `padded`, `trl`: the same
documents packed by our code, concatenated as in transformers' examples (`group_texts`), one per row with
padding, and packed by TRL. A token is useful if it is a label, not padding. MFU counts useful tokens, as in
PaLM's appendix B, against the card's dense bf16 peak (on a CPU: a timed product). Peak memory leaves out
the imports; a variant that runs out of memory is reported. The last line is one JSON object.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peer import require
from benchmarks.result import print_result

WAYS = ("ours-equal", "trainer-equal", "ours-packed", "trainer-concat", "trainer-padded", "trl-packed")
PACKAGES = ("torch", "transformers", "deepspeed", "trl", "accelerate", "liger-kernel")


class Shape(NamedTuple):
    """A model, and its default batch settings."""

    architecture: dict[str, int]
    length: int
    """Tokens per row."""
    accumulation: int
    """Micro-batches per step."""
    checkpointing: str
    """As `model.activation_checkpointing`; the peers only have none and full."""


def llama(layers: int, hidden: int, intermediate: int, heads: int, vocabulary: int) -> dict[str, int]:
    """Keys of a LLaMA configuration."""
    return {
        "num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": intermediate,
        "num_attention_heads": heads, "num_key_value_heads": heads, "vocab_size": vocabulary,
    }  # fmt: skip


SHAPES = {
    "tiny": Shape(llama(2, 64, 176, 4, 8000), 256, 1, "none"),
    "small": Shape(llama(6, 256, 704, 8, 8000), 2048, 1, "none"),
    "llama-1b": Shape(llama(16, 2048, 5632, 32, 32000), 4096, 8, "none"),
    "llama-7b": Shape(llama(32, 4096, 11008, 32, 32000), 4096, 8, "selective"),
}


def main() -> None:
    """Prepare, run all variants in turn, print a table and the JSON line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5, help="rounds over all variants (default 5)")
    parser.add_argument("--quick", action="store_true", help="one round of few steps: under 4 minutes")
    parser.add_argument("--patents", type=Path, help="raw patents; default: synthetic ones")
    parser.add_argument("--shape", choices=SHAPES, help="default: llama-7b on a GPU, small on a CPU")
    parser.add_argument("--checkpointing", choices=("none", "selective", "full"), help="default: the shape's")
    parser.add_argument("--accumulation", type=int, help="micro-batches per step; default: the shape's")
    parser.add_argument("--micro-batch", type=int, default=1, help="rows per micro-batch (default 1)")
    parser.add_argument(
        "--compile", action="store_true", help="compile our model by layer, the peers' as they do it"
    )
    parser.add_argument("--bf16", action="store_true", help="as on a GPU: bf16 weights with fp32 masters")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="run only these variants")
    parser.add_argument("--worker", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    require("trl")
    if arguments.worker:
        from benchmarks.train_ways import work

        way, folder = arguments.worker
        print(json.dumps(work(way, Path(folder))))
        return
    plan = plan_of(arguments)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in arguments.ways}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "plan.json").write_text(json.dumps(plan), "utf-8")
        sources = f"sources=[{arguments.patents}]" if arguments.patents else "synthetic.inventions=400"
        vocabulary = "tokenizer.vocabulary_size=8000"
        command("data", "run", f"output_dir={folder / 'corpus'}", vocabulary, sources)
        for number in range(1 if arguments.quick else arguments.rounds):
            for way in arguments.ways if number % 2 == 0 else arguments.ways[::-1]:
                measured = worker(way, scratch)
                found[way] += [measured] if measured else []
                print(f"round {number + 1}: {way:15}{measured or 'out of memory'}", flush=True)
    report({way: runs for way, runs in found.items() if runs}, cuda=plan["cuda"])


def plan_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings for every worker."""
    import torch

    cuda = torch.cuda.is_available()
    shape = SHAPES[arguments.shape or ("llama-7b" if cuda else "small")]
    return {
        "architecture": shape.architecture,
        "length": shape.length,
        "accumulation": arguments.accumulation or shape.accumulation,
        "micro_batch": arguments.micro_batch,
        "checkpointing": arguments.checkpointing or shape.checkpointing,
        "compile": arguments.compile,
        "bf16": cuda or arguments.bf16,
        "cuda": cuda,
        "steps": 4 if arguments.quick else 8,
    }


def worker(way: str, folder: str) -> dict[str, float] | None:
    """Run one variant in its own process; None if the GPU ran out of memory."""
    try:
        printed = command("benchmarks.train", "--worker", way, folder)
    except SystemExit as error:
        if "CUDA out of memory" in str(error):
            return None
        raise
    found: dict[str, float] = json.loads(printed.strip().splitlines()[-1])
    return found


def command(*arguments: str) -> str:
    """The output of `python -m ARGUMENTS`; exits with it if the command fails."""
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def report(found: dict[str, list[dict[str, float]]], *, cuda: bool) -> None:
    """Print a table and the JSON line: medians over the rounds; absolute speeds only on a GPU."""
    middle = {
        way: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for way, runs in found.items()
    }
    print(f"{'':17}{'useful tokens/s':>16}{'MFU':>8}{'peak MiB':>11}")
    for way, numbers in middle.items():
        speed, mfu, memory = numbers["tokens_per_s"], numbers["mfu"], numbers["peak_mib"]
        print(f"{way:17}{speed:16,.0f}{mfu:8.1%}{memory:11,.0f}")
    pairs = {
        "tokens_per_s_vs_hf_trainer_ratio": ("tokens_per_s", "ours-equal", "trainer-equal"),
        "packed_vs_hf_concat_ratio": ("tokens_per_s", "ours-packed", "trainer-concat"),
        "packed_vs_hf_padded_ratio": ("tokens_per_s", "ours-packed", "trainer-padded"),
        "tokens_per_s_vs_trl_ratio": ("tokens_per_s", "ours-packed", "trl-packed"),
        "peak_memory_vs_hf_trainer_ratio": ("peak_mib", "ours-equal", "trainer-equal"),
    }
    results = {
        key: middle[ours][number] / middle[peer][number]
        for key, (number, ours, peer) in pairs.items()
        if ours in middle and peer in middle
    }
    if cuda:
        for way, numbers in middle.items():
            name = way.replace("-", "_")
            results |= {f"{name}_tokens_per_s": numbers["tokens_per_s"], f"{name}_mfu_ratio": numbers["mfu"]}
    print_result("train", PACKAGES, results)


if __name__ == "__main__":
    main()
