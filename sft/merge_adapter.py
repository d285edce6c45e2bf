"""An adapter added to its base: a whole model, in bf16 (or `--dtype`), that needs no peft.

    python -m sft merge --adapter RUN/model --output FOLDER [--base FOLDER]

The base is loaded in bf16 and never in 4 bits, whatever the training did: what is added to a rounded weight
would be rounded once more.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from core.config.schema import AdapterConfig
from core.errors import UserError
from core.model import lora
from core.model.location import HUB_ID, check_location
from core.provenance import manifest

SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def main(arguments: list[str]) -> None:
    """Merge, and say where the result is."""
    parser = argparse.ArgumentParser(
        prog="python -m sft merge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapter", type=Path, required=True, help="a folder in peft's layout, as RUN/model")
    parser.add_argument("--output", type=Path, required=True, help="the new model's folder")
    parser.add_argument("--base", help="the base, where it is not at the place that the adapter names")
    parser.add_argument(
        "--dtype",
        choices=list(SHORT),
        default="bfloat16",
        help="the type of the result; that of the base, if a delta to it is to be made",
    )
    parser.add_argument("--force", action="store_true", help="replace what is at --output")
    given = parser.parse_args(arguments)
    merge(given.adapter, given.output, given.base, force=given.force, dtype=given.dtype)
    print(f"done: {given.output}")


def merge(
    adapter: Path, output: Path, base: str | None = None, *, force: bool = False, dtype: str = "bfloat16"
) -> None:
    """Write base + adapter, the adapter's tokenizer and a manifest to `output`; UserError where they do not
    fit."""
    import torch

    from core.model.loading import load_tokenizer, prompt_as_trained, repair_generation, weight_files

    base = base or base_of(adapter)
    with manifest.build(
        output, step="merge", config={"base": base, "adapter": str(adapter), "dtype": dtype}, force=force,
        inputs=weight_files(base) | weight_files(str(adapter)),
    ) as built:  # fmt: skip
        model = open_model(base, getattr(torch, dtype), adapter).merge_and_unload()
        tokenizer = load_tokenizer(str(adapter))
        prompt_as_trained(model, tokenizer)
        if repaired := repair_generation(model):
            print(repaired)
        model.save_pretrained(built.path)
        tokenizer.save_pretrained(built.path)
        (built.path / "README.md").write_text(merged_card(adapter, base, output.name, dtype), "utf-8")
        if (adapter / manifest.NAME).exists():
            built.sources = manifest.read(adapter).get("sources") or {}
        built.counts["parameters"] = sum(parameter.numel() for parameter in model.parameters())


def merged_card(adapter: Path, base: str, name: str, dtype: str = "bfloat16") -> str:
    """The adapter's card as that of the whole model, or a short one if the adapter has none."""
    from core.train.model_card import as_front_matter, base_on_hub, front_matter

    tree, text = front_matter(adapter / "README.md")
    stated = str(tree.pop("base_model", ""))  # peft's own cards have a folder here
    named = HUB_ID.fullmatch(stated) and not Path(stated).exists()
    known = base_on_hub(stated if named else None, base)
    tree |= {"library_name": "transformers"} | ({"base_model": known} if known else {})
    said = (
        f"# {name}\n\nA whole model in {SHORT[dtype]}: the adapter `{adapter.name}` merged into its base"
        f" `{known or base}`."
    )
    if text:
        said += " What follows is the adapter's card; its numbers were measured before the merge.\n\n" + text
    return f"{as_front_matter(tree)}\n\n{said}\n"


def base_of(adapter: Path) -> str:
    """The base that an adapter names; UserError if the folder holds no adapter."""
    if not adapter.is_dir():
        raise UserError(f"{adapter}: no such folder")
    try:
        settings = json.loads((adapter / lora.CONFIG).read_text("utf-8"))
        base: str = settings["base_model_name_or_path"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{adapter}: this is not an adapter in peft's layout: {error}.") from None
    return base


def open_model(base: str, dtype: Any, adapter: Path | None = None, *, load_in_4bit: bool = False) -> Any:
    """A model to use, with its adapter where one is given; UserError where it cannot be opened."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    check_location(base)
    bits = lora.quantised(AdapterConfig(load_in_4bit=load_in_4bit), dtype)
    try:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, trust_remote_code=False, **bits)
    except (OSError, ValueError) as error:
        raise UserError(f"{base}: the model cannot be loaded: {str(error).splitlines()[0]}") from None
    if adapter is not None:
        lora.extend_rows(adapter, model)
        lora.check_base(adapter, base, model)
        model = PeftModel.from_pretrained(model, str(adapter))
    return model
