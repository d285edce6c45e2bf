"""Hashes of all results that must stay bit for bit on one machine, whatever happens to the code between.

    python -m tests.frozen.fingerprint OUTPUT_FOLDER        two minutes; at two commits, then `diff`

The result is OUTPUT_FOLDER/fingerprint.json; the folder must not exist yet. Manifests, times, paths, prose
and pictures are left out, so two runs of the same code give the same file.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.frozen import inputs
from tests.frozen.contents import digest, hashes
from tests.frozen.work import LORA, Work, metrics


def main(output: Path) -> None:
    """Do the work and write its fingerprint."""
    output.mkdir(parents=True)
    work = Work(inputs.write_all(output.resolve() / "work"))
    found = {"inputs": hashes(work.folder)} | _data(work) | _training(work) | _results(work)
    text = json.dumps(found, ensure_ascii=False, indent=1) + "\n"
    (output / "fingerprint.json").write_text(text, "utf-8")
    print(output / "fingerprint.json")


def _data(work: Work) -> dict[str, Any]:
    """Corpora by both kinds of tokenizer, instruction data made of one, made-up text."""
    folders = {
        "corpus": work.corpus("corpus"),
        "corpus, trained tokenizer": work.corpus("pieces", "tokenizer.vocabulary_size=1400"),
        "built": work.folder / "built",
        "everyday": work.folder / "everyday",
    }
    work.do(
        "data", "build", f"corpus={folders['corpus'] / 'decontaminate'}", f"output_dir={folders['built']}"
    )
    work.do("data", "everyday", "--stories", "20", "--chats", "20", "--output", folders["everyday"])
    return {name: hashes(folder, work.folder) for name, folder in folders.items()}


def _training(work: Work) -> dict[str, Any]:
    """Runs of every kind: their numbers with all digits, their weights and what else they leave."""
    runs = {
        "pretrain": work.pretrain("pretrain"),
        "pretrain, ZeRO 3, bf16": work.pretrain(
            "bf16", "training.precision=bf16", "deepspeed.zero_stage=3", "training.steps=4"
        ),
        "pretrain, two processes": work.pretrain(
            "two", "deepspeed.zero_stage=2", "training.steps=4", processes=2
        ),
        "sft": work.sft("sft"),
        "sft, unpacked, noise": work.sft("noise", "packing=none", "neftune_alpha=5", "training.steps=4"),
        "sft, LoRA": work.sft("lora", *LORA),
        "dpo": work.dpo("dpo"),
        "dpo, LoRA": work.dpo("dpo-lora", *LORA, "training.steps=4"),
    }
    return {"chats": hashes(work.folder / "chats", work.folder)} | {
        name: {"metrics": metrics(run), "files": hashes(run, work.folder)} for name, run in runs.items()
    }


def _results(work: Work) -> dict[str, Any]:
    """A delta, a merged adapter, answers, scores and a comparison."""
    base, tuned = (_without_records(work.folder / name) for name in ("pretrain/base", "pretrain/model"))
    delta, merged = work.folder / "delta", work.folder / "merged"
    work.do("delta", "make", "--base", base, "--target", tuned, "--delta", delta)
    work.do("sft", "merge", "--adapter", work.folder / "lora/model", "--output", merged)
    a = work.evaluate("eval-base", work.folder / "base")
    b = work.evaluate("eval-sft", work.folder / "sft/model")
    compared = work.folder / "compared.json"
    work.do("eval", "compare", a, b, "--output", compared)
    return {
        "delta": hashes(delta),
        "merged": hashes(merged, work.folder),
        "eval, base": hashes(a, work.folder),
        "eval, sft": hashes(b, work.folder),
        "scores": json.loads((b / "scores.json").read_text("utf-8")),
        "comparison": digest(compared.read_bytes().replace(str(work.folder).encode(), b"ROOT")),
    }


def _without_records(model: Path) -> Path:
    """A copy of a model without its manifest, which names times and would be stored in a delta."""
    copy = model.with_name(f"{model.name}-alone")
    shutil.copytree(model, copy, ignore=shutil.ignore_patterns("manifest.json", "README.md"))
    return copy


if __name__ == "__main__":
    main(Path(sys.argv[1]))
