"""`python -m pretrain lengthen`: a base for longer texts, and the refusal that names it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from core.errors import UserError
from core.model.weight_files import find_any
from core.provenance import manifest
from pretrain.lengthen import lengthen
from tests.conftest import TinyRuns, losses, warm

SHAPE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "vocab_size": 64, "max_position_embeddings": 64,
}  # fmt: skip


def base_of(folder: Path, family: str = "llama", **keys: Any) -> Path:
    """A tiny model whose other files say 64 tokens too."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**SHAPE, **keys}))
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"max_length": 64, "bos_token_id": 1}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30}))
    return folder


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        (("yarn", None, None), {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}),
        (("linear", 10.0, None), {"rope_type": "linear", "factor": 10.0}),
        ((None, None, 5e5), {"rope_type": "default", "rope_theta": 5e5}),
    ],
)
def test_positions_are_stretched_and_weights_are_not_touched(
    way: tuple[Any, Any, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    base, new = base_of(tmp_path / "base"), tmp_path / "new"
    sources = {"patents": {"licence": "CC0", "use": "any"}}
    manifest.write(base, step="train", config={}, inputs={}, counts={}, sources=sources)
    lengthen(base, new, 512, *way)
    config = AutoConfig.from_pretrained(new)
    assert config.max_position_embeddings == 512
    assert expected.items() <= config.rope_parameters.items()
    found, before = find_any(new), find_any(base)
    assert found
    assert before
    assert [f.read_bytes() for f in found.files] == [f.read_bytes() for f in before.files]
    assert json.loads((new / "generation_config.json").read_text())["max_length"] == 512
    assert json.loads((new / "tokenizer_config.json").read_text())["model_max_length"] == 10**30
    assert manifest.read(new)["sources"] == sources
    slow, fast = (
        AutoModelForCausalLM.from_pretrained(path).model.rotary_emb.inv_freq for path in (new, base)
    )
    assert bool((slow <= fast).all())
    assert slow[-1] < fast[-1] / 2, "the lowest frequency is stretched"


@pytest.mark.parametrize(
    ("family", "keys", "way", "why"),
    [
        ("gpt2", {}, (512, "yarn", None, None), "no rotary positions"),
        ("llama", {}, (64, "yarn", None, None), "64 positions already"),
        ("llama", {}, (512, "yarn", 4.0, None), "fewer than 512"),
        ("llama", {}, (512, None, None, 100.0), "not above the model's own"),
        (
            "llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            (512, "yarn", None, None), "stretched already",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_stretched_is_refused(
    family: str, keys: dict[str, Any], way: tuple[Any, ...], why: str, tmp_path: Path
) -> None:
    base = base_of(tmp_path / "base", family, **keys)
    with pytest.raises(UserError, match=why):
        lengthen(base, tmp_path / "new", *way)
    assert not (tmp_path / "new").exists()


def test_a_run_longer_than_its_base_names_the_command_whose_result_it_trains_on(tiny: TinyRuns) -> None:
    settings = ["sequence_length=512", "training.steps=2", "training.validate_every_steps=null"]
    done = warm("pretrain", *tiny.overrides("too-long", *settings))
    assert done.returncode == 2, done.stdout
    base, new = tiny.folder / "prepared" / "base", tiny.folder / "lengthened"
    command = f"python -m pretrain lengthen --base {base} --output DIR --rope yarn"
    command += " --max-position-embeddings 512"
    assert command in done.stderr
    done = warm(*command.replace("DIR", str(new)).split()[2:])
    assert done.returncode == 0, done.stderr
    found = tiny.train("lengthened-run", *settings, f"model.path={new}")
    assert len(losses(found)) == 2
