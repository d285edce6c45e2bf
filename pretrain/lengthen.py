"""Write a base for longer texts: the same weights, with stretched rotary positions. Then train it on them.

    python -m pretrain lengthen --base MODEL --output DIR --rope yarn --max-position-embeddings 32768
    python -m pretrain lengthen --base MODEL --output DIR --rope-theta 1e6 --max-position-embeddings 32768

yarn stretches low frequencies and keeps high ones (arXiv:2309.00071), linear stretches all of them alike
(arXiv:2306.15595); --rope-theta slows them all by a larger base (arXiv:2309.16039). The factor is the new
length over the old one unless --factor gives it.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.provenance import manifest

LENGTHS = {"tokenizer_config.json": "model_max_length", "generation_config.json": "max_length"}
"""Where else a model's folder says how long a text may be."""


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrain lengthen",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", type=Path, required=True, metavar="DIR", help="a model's folder")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--max-position-embeddings", type=int, required=True, metavar="N", help="tokens")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--rope", choices=("yarn", "linear"))
    way.add_argument("--rope-theta", type=float, metavar="N")
    parser.add_argument(
        "--factor", type=float, metavar="N", help="with --rope: how far positions are stretched"
    )
    given = parser.parse_args(arguments)
    if given.factor is not None and given.rope is None:
        raise UserError(
            "--factor belongs to --rope. Remove it, or give --rope yarn in place of --rope-theta."
        )
    lengthen(
        given.base, given.output, given.max_position_embeddings, given.rope, given.factor, given.rope_theta
    )


def lengthen(
    base: Path, output: Path, length: int, rope: str | None, factor: float | None, theta: float | None
) -> None:
    """Write the model of `base` with `length` positions to `output`, and print its rotary parameters."""
    from core.model.loading import load_config

    if not (base / "config.json").is_file():
        raise UserError(
            f"--base {base}: no folder of a model (config.json). Download a model of the hub first."
        )
    described = load_config(str(base))
    text = described.get_text_config()
    old: int = getattr(text, "max_position_embeddings", None) or 0
    text.rope_parameters = stretched(text, base, length, rope, factor, theta)
    text.max_position_embeddings = length
    files = sorted(file for file in base.iterdir() if file.is_file() and file.name != manifest.NAME)
    settings = {"base": str(base), "max_position_embeddings": length, "rope_parameters": text.rope_parameters}
    made = manifest.read(base) if (base / manifest.NAME).exists() else {}
    with manifest.build(output, step="lengthen", config=settings, inputs=manifest.hash_files(files)) as built:
        for file in files:
            shutil.copyfile(file, built.path / file.name)
            if file.name in LENGTHS:
                _raise(built.path / file.name, LENGTHS[file.name], old, length)
        described.save_pretrained(built.path)
        built.counts = {"positions_before": old, "positions": length}
        built.sources = made.get("sources") or {}
    print(f"{old:,} positions before, {length:,} after: {output}")
    print(f"rope_parameters: {json.dumps(text.rope_parameters)}")


def stretched(
    text: Any, base: Path, length: int, rope: str | None, factor: float | None, theta: float | None
) -> dict[str, Any]:
    """The new rotary parameters of a configuration; UserError if it has none that can be stretched so."""
    old, rotary = getattr(text, "max_position_embeddings", None), getattr(text, "rope_parameters", None)
    if not rotary or not isinstance(old, int):
        raise UserError(
            f"--base {base}: {text.model_type} has no rotary positions, which alone can be stretched."
        )
    if text.nested_rope_parameter_keys(rotary):
        raise UserError(
            f"--base {base}: {text.model_type} has other rotary parameters in each kind of layer. Edit"
            " rope_parameters in a copy of its config.json."
        )
    if length <= old:
        raise UserError(f"--max-position-embeddings {length}: the model has {old:,} positions already.")
    if theta is not None:
        if theta <= rotary["rope_theta"]:
            raise UserError(f"--rope-theta {theta:g}: not above the model's own, {rotary['rope_theta']:g}.")
        return {**rotary, "rope_theta": theta}
    if rotary["rope_type"] != "default":
        raise UserError(
            f"--base {base}: its positions are stretched already ({rotary['rope_type']}). Give --rope-theta,"
            " or lengthen the model that it was made from."
        )
    factor = length / old if factor is None else factor
    if factor * old < length:
        raise UserError(f"--factor {factor:g}: {old:,} positions times {factor:g} are fewer than {length:,}.")
    original = {"original_max_position_embeddings": old} if rope == "yarn" else {}
    return {**rotary, "rope_type": rope, "factor": float(factor), **original}


def _raise(file: Path, key: str, old: int, length: int) -> None:
    """Set a limit in a JSON file to the new length, if it is one between the old and the new."""
    tree = json.loads(file.read_text("utf-8"))
    if isinstance(tree.get(key), int) and old <= tree[key] < length:
        file.write_text(json.dumps(tree | {key: length}, indent=2, ensure_ascii=False) + "\n", "utf-8")
