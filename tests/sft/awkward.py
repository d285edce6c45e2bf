"""Bases with what published ones have: settings that contradict themselves, tied embeddings, a tokenizer that
pads with its end token or not at all, a longer vocabulary in the adapter."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.sft.chats import Bases

VICUNA = {"temperature": 0.9, "top_p": 0.6, "max_length": 4096}
"""Generation settings of Vicuna 1.5: sampling without `do_sample`."""


def awkward(
    bases: Bases,
    folder: Path,
    kind: str = "llama",
    *,
    generation: dict[str, Any] | None = None,
    tokens: Mapping[str, str | None] | None = None,
    **architecture: Any,
) -> str:
    """A base in `folder` that differs from `bases.path(kind)` in its architecture, generation settings and
    special tokens (None: it has none)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    source = Path(bases.path(kind))
    config = AutoConfig.from_pretrained(source)
    for key, value in architecture.items():
        setattr(config, key, value)
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    if tokens is not None:
        set_tokens(folder, tokens)
    return str(folder)


def set_tokens(folder: Path, tokens: Mapping[str, str | None]) -> None:
    """Change a tokenizer's special tokens."""
    file = folder / "tokenizer_config.json"
    tree = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in (tree | tokens).items() if value is not None}))
