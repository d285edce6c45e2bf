"""A base is tried out before training: whatever its family, its loss is that of transformers, document by
document, or it is refused."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config.schema import ModelConfig
from core.errors import UserError
from core.model import families, proof, varlen_attention
from core.model.loading import load_config, load_model, remarks
from core.model.loss_head import IGNORED, LossHead, output_layer, summed_loss
from tests.conftest import ROOT
from tests.core.model.test_varlen_attention import make_batch

SHAPE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "vocab_size": 64, "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
LATENT = {
    "num_key_value_heads": 4, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
    "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
    "moe_intermediate_size": 32, "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1,
}  # fmt: skip
"""DeepSeek's multi-head latent attention: values narrower than queries."""
GEMMA = {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8}
GPT_OSS = {"num_key_value_heads": 2, "num_local_experts": 4, "head_dim": 8, "sliding_window": 8}

BASES: list[tuple[str, dict[str, Any], str, bool]] = [
    ("llama", {}, "documents", True),
    ("mistral", {"num_key_value_heads": 2, "sliding_window": 8}, "documents", True),
    ("gpt_neox", {}, "documents", True),
    ("deepseek_v3", LATENT, "documents", True),
    ("deepseek_v2", LATENT, "documents", True),
    ("cohere", {"num_key_value_heads": 2}, "documents", False),
    ("granite", {"num_key_value_heads": 2, "logits_scaling": 8.0}, "documents", False),
    ("gemma2", {**GEMMA, "attn_logit_softcapping": 0.5}, "eager", False),
    ("gemma2", {**GEMMA, "attn_logit_softcapping": None, "final_logit_softcapping": None}, "documents", True),
    ("gpt_oss", GPT_OSS, "eager", True),
    ("bloom", {"n_head": 4, "n_layer": 2}, "eager", True),
    (
        "codegen",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "rotary_dim": 4},
        "eager",
        True,
    ),
    ("mamba", {"state_size": 4, "time_step_rank": 4}, "eager", True),
]
"""Family, settings, the attention that it is trained with, and whether its loss may be chunked."""


def write_base(folder: Path, family: str, keys: dict[str, Any]) -> str:
    """A base with weights so large that attention matters."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family, **{**SHAPE, **keys})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    return str(folder)


def loss_alone(path: str, batch: dict[str, torch.Tensor], **settings: Any) -> float:
    """The sum over the batch's documents, each by itself, by transformers."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **settings).eval()
    ids, labels = batch["input_ids"].flatten(), batch["labels"].flatten()
    total = 0.0
    for first, last in pairwise(batch["boundaries"].tolist()):
        with torch.no_grad():
            logits = model(input_ids=ids[None, first:last], use_cache=False).logits[0].float()
        total += torch.nn.functional.cross_entropy(logits, labels[first:last], reduction="sum").item()
    return total


@pytest.mark.parametrize(("family", "keys", "attention", "chunked"), BASES)
def test_packed_documents_have_the_loss_that_transformers_gives_each(
    family: str, keys: dict[str, Any], attention: str, chunked: bool, tmp_path: Path
) -> None:
    path, batch = write_base(tmp_path, family, keys), make_batch([[20, 15, 29], [30, 1, 33]])
    model = load_model(path, ModelConfig(path=path), torch.float32).eval()
    assert isinstance(output_layer(model), LossHead) is chunked
    assert model.config._attn_implementation == attention
    expected = loss_alone(path, batch, attn_implementation="eager")
    assert summed_loss(model, batch).item() == pytest.approx(expected, rel=1e-5)
    whole = load_model(path, ModelConfig(path=path, cross_entropy="full"), torch.float32).eval()
    assert summed_loss(whole, batch).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_models_own_attention_can_be_asked_for(attention: Any, tmp_path: Path) -> None:
    path, batch = write_base(tmp_path, "llama", {}), make_batch([[20, 15, 29], [30, 1, 33]])
    config = ModelConfig(path=path, attention=attention)
    model = load_model(path, config, torch.float32)
    found = summed_loss(model, batch)
    assert found.item() == pytest.approx(loss_alone(path, batch), rel=1e-5)
    ours = load_model(path, ModelConfig(path=path), torch.float32)
    for each in (ours, model):
        summed_loss(each, batch).backward()
    for mine, theirs in zip(ours.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    assert list(remarks(load_config(path), config, 64)) == []


@pytest.mark.parametrize(
    ("family", "keys", "attention", "reason"),
    [
        ("gemma2", {**GEMMA, "attn_logit_softcapping": 50.0}, "sdpa", "attention=sdpa: gemma2 would not be"),
        ("gpt_oss", GPT_OSS, "flash_attention_2", "attention=flash_attention_2: gpt_oss would not .* s_aux"),
        ("bert", {}, "documents", "bert: this model sees the tokens that it should predict"),
    ],
)
def test_what_would_be_trained_wrong_is_refused_by_name(
    family: str, keys: dict[str, Any], attention: str, reason: str
) -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model(family, **{**SHAPE, **keys})
    with pytest.raises(UserError, match=reason):
        proof.prove(config, attention)


def test_what_cannot_be_tried_out_is_trained_only_as_transformers_computes_it() -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model("zamba")
    with pytest.raises(UserError, match=r"zamba: .* could not be built .*model\.attention=eager"):
        proof.prove(config, "documents")
    way = proof.prove(config, "eager")
    assert (way.attention, way.apart, way.plain_head) == ("eager", True, False)


@settings(max_examples=40, deadline=None)
@given(
    heads=st.integers(1, 16),
    groups=st.integers(1, 8),
    width=st.sampled_from([2, 4, 6, 8, 16, 20, 64, 128]),
    family=st.sampled_from(["llama", "qwen2", "mistral"]),
)
def test_a_model_of_any_number_of_heads_can_be_tried_out(
    heads: int, groups: int, width: int, family: str
) -> None:
    from transformers import AutoConfig

    size = heads * groups * width
    config = AutoConfig.for_model(
        family, hidden_size=size, intermediate_size=2 * size, num_attention_heads=heads * groups,
        num_key_value_heads=heads, vocab_size=100, num_hidden_layers=2,
    )  # fmt: skip
    assert torch.isfinite(proof.Trial(config, trust=False).alone()).all()


def test_the_trial_leaves_no_trace_in_the_run() -> None:
    from transformers import AutoConfig

    before = torch.get_rng_state()
    proof._known.clear()
    proof.prove(AutoConfig.for_model("llama", **SHAPE), "documents")
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unknown_argument_of_attention_is_an_error() -> None:
    tensor, module = torch.zeros(1, 1, 4, 8), torch.nn.Identity()
    for name in ("softcap", "s_aux", "position_bias", "a_new_one"):
        given: dict[str, Any] = {name: 1.0}
        with pytest.raises(NotImplementedError, match=f"Identity uses {name}"):
            varlen_attention.attend(module, tensor, tensor, tensor, None, **given)


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=9),
    learnt=st.lists(st.booleans(), min_size=9, max_size=9),
)
def test_every_learnt_place_is_in_one_row_behind_the_tokens_before_it(
    lengths: list[int], learnt: list[bool]
) -> None:
    model, batch = torch.nn.Linear(1, 1), make_batch([lengths])
    varlen_attention.keep_apart(model)
    places = sum(lengths)
    number = torch.repeat_interleave(torch.tensor(lengths))
    labels = torch.arange(places).where(torch.tensor(learnt)[number], torch.tensor(IGNORED))
    batch |= {"input_ids": torch.arange(places)[None], "labels": labels[None]}
    batch["position_ids"] = torch.cat([torch.arange(n) for n in lengths])[None]
    found = []
    for rows in varlen_attention.passes(model, batch):
        assert rows["input_ids"].numel() <= places
        for ids, row in zip(rows["input_ids"].tolist(), rows["labels"].tolist(), strict=True):
            kept = [label for label in row if label != IGNORED]
            assert kept == ids[: len(kept)]
            assert kept == [*range(kept[0], kept[0] + len(kept))] if kept else True
            found += kept
    assert sorted(found) == [label for label in labels.tolist() if label != IGNORED]


LONG = [
    ("gpt2", {}, "base: the model has 256 learnt positions, but samples have 257"),
    ("llama", {}, "python -m pretrain lengthen --base base .*--max-position-embeddings 257"),
    ("bloom", {"max_position_embeddings": None}, None),
]


@pytest.mark.parametrize(("family", "keys", "told"), LONG)
def test_documents_beyond_the_models_positions_are_refused_with_the_way_out(
    family: str, keys: dict[str, Any], told: str | None
) -> None:
    from transformers import AutoConfig

    described, config = AutoConfig.for_model(family, **{**SHAPE, **keys}), ModelConfig(path="base")
    assert not any("positions" in line for line in remarks(described, config, 256))
    if told is None:
        assert not any("positions" in line for line in remarks(described, config, 257))
        return
    with pytest.raises(UserError, match=told):
        list(remarks(described, config, 257))
    if family == "llama":
        begun = list(remarks(described, config, 257, begun=True))
        assert "more than the 256 positions" in begun[0], "a run that has begun goes on"


OWN_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM
class MineConfig(LlamaConfig):
    model_type = "mine"
class Mine(LlamaForCausalLM):
    config_class = MineConfig
"""


def test_a_models_own_code_is_run_only_if_trusted_and_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    def ask(*_: Any) -> str:
        raise AssertionError("a question on standard input")

    monkeypatch.setattr("builtins.input", ask)
    path = write_base(tmp_path / "base", "llama", {})
    (tmp_path / "base" / "mine.py").write_text(OWN_CODE)
    file = tmp_path / "base" / "config.json"
    own = {"AutoConfig": "mine.MineConfig", "AutoModelForCausalLM": "mine.Mine"}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "mine", "auto_map": own}))
    with pytest.raises(UserError, match=r"code of its own.*set model\.trust_remote_code=true"):
        load_model(path, ModelConfig(path=path), torch.float32)
    trusted = ModelConfig(path=path, trust_remote_code=True)
    model = load_model(path, trusted, torch.float32)
    assert type(model).__name__ == "Mine"
    assert list(remarks(load_config(path, trust=True), trusted, 64)) == []
    batch = make_batch([[20, 44]])
    expected = loss_alone(path, batch, trust_remote_code=True)
    assert summed_loss(model, batch).item() == pytest.approx(expected, rel=1e-5)


FEW = (
    "llama",
    "qwen3",
    "mistral",
    "gpt2",
    "gpt_neox",
    "mixtral",
    "cohere",
    "gemma2",
    "gpt_oss",
    "bloom",
    "bert",
)


def test_the_page_says_of_these_families_what_is_so() -> None:
    page = (ROOT / "docs" / "families.md").read_text("utf-8").splitlines()
    for family in FEW:
        assert families.line(family) in page


@pytest.mark.slow
def test_the_page_is_what_the_command_writes() -> None:
    assert (ROOT / "docs" / "families.md").read_text("utf-8") == families.page(families.families())
