"""Converted weights, of every version and in any number of parts, compute the same in transformers as Meta's
formulas; inconsistent input is rejected."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from core.errors import UserError
from delta.meta_llama.convert import convert
from delta.meta_llama.params import SIZES, read_params
from delta.meta_llama.tokenizer import special_tokens
from tests.conftest import run
from tests.delta.meta import VOCABULARY, meta_logits, meta_weights, save_meta

LLAMA3 = 128_256
VERSIONS = [
    # version, parts, key-value heads, type, vocabulary, theta, scale, context, params.json
    ("1", 1, 4, torch.float16, VOCABULARY, 1e4, None, 2048, {"norm_eps": 1e-6}),
    ("1", 4, 4, torch.float16, VOCABULARY, 1e4, None, 2048, {"norm_eps": 1e-6}),
    ("2", 2, 2, torch.bfloat16, VOCABULARY, 1e4, None, 4096, {"n_kv_heads": 2}),
    ("3", 2, 2, torch.bfloat16, LLAMA3, 5e5, None, 8192, {"n_kv_heads": 2, "rope_theta": 5e5}),
    ("3.1", 2, 2, torch.bfloat16, LLAMA3, 5e5, 8.0, 131072,
     {"n_kv_heads": 2, "rope_theta": 5e5, "use_scaled_rope": True}),
    ("3.2", 1, 1, torch.bfloat16, LLAMA3, 5e5, 32.0, 131072,
     {"n_kv_heads": 1, "rope_theta": 5e5, "use_scaled_rope": True}),
]  # fmt: skip


@pytest.mark.parametrize("case", VERSIONS, ids=lambda case: f"{case[0]}-{case[1]}")
def test_the_converted_model_computes_metas_logits(
    tmp_path: Path, case: tuple[str, int, int, torch.dtype, int, float, float | None, int, dict[str, float]]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    version, parts, kv, dtype, vocabulary, theta, scale, context, params = case
    weights = meta_weights(kv, dtype, vocabulary, tied=version == "3.2")
    source = save_meta(tmp_path / "in", weights, parts, **params)
    # At this test model's width 3.1 cannot be distinguished from 3.2.
    convert(source, tmp_path / "out", version="3.1" if version == "3.1" else None, shard_bytes=20_000)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.dtype == dtype
    assert model.config.max_position_embeddings == context
    assert model.config.tie_word_embeddings == (version == "3.2")
    assert model.config.rms_norm_eps == params.get("norm_eps", 1e-5)
    model.float().eval().config.rms_norm_eps = 1e-5
    for norm in (module for module in model.modules() if hasattr(module, "variance_epsilon")):
        norm.variance_epsilon = 1e-5
    tokens = torch.arange(40) * 7
    with torch.no_grad():
        logits = model(tokens[None]).logits[0]
    expected = meta_logits(weights, tokens, kv, theta, scale)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "A claim of the 专利, the\n\n 2024 claim's"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id == (262 if vocabulary == LLAMA3 else 1)
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_another_type_is_rounded_as_torch_rounds_it_and_sizes_are_checked(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    weights = meta_weights(4, torch.float16)
    (tmp_path / "in").mkdir()
    save_meta(tmp_path / "in/7B", weights, 1)
    done = run(
        "delta", "convert", "--input_dir", tmp_path / "in", "--model_size", "7B", "--output_dir",
        tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 2
    assert "dim 32 and 2 layers are not LLaMA 7B" in done.stderr
    assert not (tmp_path / "out").exists()
    done = run(
        "delta", "convert", "--input_dir", tmp_path / "in/7B", "--output_dir", tmp_path / "out", "--dtype",
        "bfloat16",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = load_file(tmp_path / "out/model.safetensors")
    assert torch.equal(made["lm_head.weight"], weights["output.weight"].bfloat16())
    assert len(made) == len(weights)


@pytest.mark.parametrize("size", [*SIZES, "7Bf", "70Bf", "405B-MP16"])
def test_every_published_size_is_known(tmp_path: Path, size: str) -> None:
    dim, layers = SIZES[size.partition("-")[0].removesuffix("f")]
    params = {"dim": dim, "n_layers": layers, "n_heads": dim // 128, "norm_eps": 1e-5}
    (tmp_path / "params.json").write_text(json.dumps(params))
    assert read_params(tmp_path, size)["n_kv_heads"] == dim // 128


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _params(**changes: object) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / "params.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return write


def _tensors(changes: dict[str, object]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / "consolidated.00.pth"
        tensors = {**torch.load(path), **changes}
        torch.save({name: value for name, value in tensors.items() if value is not None}, path)

    return write


class Code:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("code ran",))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove("params.json"), "params.json is missing"),
        (_remove("consolidated.00.pth"), "consolidated.01.pth"),
        (_remove("consolidated.01.pth"), "Parts are missing"),
        (_remove("tokenizer.model"), "tokenizer.model is missing"),
        (_params(dim=64), "params.json belongs to another model"),
        (_params(n_layers=3), "layers.2.attention.wq.weight is missing"),
        (_params(n_layers=1), "layers.1."),
        (_params(n_heads=0), "damaged"),
        (_params(dim="32"), "damaged"),
        (_tensors({"norm.weight": None}), "norm.weight is not in all"),
        (_tensors({"norm.weight": torch.ones(3)}), "norm.weight"),
        (_tensors({"layers.0.feed_forward.w3.weight": torch.ones(16, 32)}), "w3.weight has another"),
        (_tensors({"norm.weight": torch.ones(32, dtype=torch.int64)}), "norm.weight has another"),
        (_tensors({"extra": Code()}), "its pickle calls"),
        (lambda folder: (folder / "consolidated.00.pth").write_bytes(b"PK"), "was not written by torch.save"),
        (lambda folder: (folder / "params.json").write_text("{"), "damaged"),
    ],
)
def test_inconsistent_input_is_rejected_and_nothing_appears(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    source = save_meta(tmp_path / "in", meta_weights(4, torch.float16), 2)
    damage(source)
    with pytest.raises(UserError) as refused:
        convert(source, tmp_path / "out")
    assert message in str(refused.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="already exists"):
        convert(save_meta(tmp_path / "good", meta_weights(4, torch.float16), 1), source)


def test_llama_3_numbers_its_special_tokens_as_meta_does() -> None:
    old, new = special_tokens("3"), special_tokens("3.1")
    assert len(set(old)) == len(set(new)) == 256
    assert old[9] == new[9] == "<|eot_id|>"
    assert (old[-1], new[-1]) == ("<|reserved_special_token_250|>", "<|reserved_special_token_247|>")
    assert new[4] == "<|finetune_right_pad_id|>"


def test_a_damaged_tokenizer_of_llama_3_is_refused(tmp_path: Path) -> None:
    weights = meta_weights(4, torch.bfloat16, LLAMA3)
    source = save_meta(tmp_path / "in", weights, 1, rope_theta=5e5)
    for content in ("not base64 1\n", "YQ== 0\n", "YQ== x\n"):
        (source / "tokenizer.model").write_text(content)
        with pytest.raises(UserError, match=r"tokenizer\.model"):
            convert(source, tmp_path / "out")
