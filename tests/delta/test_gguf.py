"""A GGUF file is the model: llama.cpp gives transformers' token ids and greedy answers."""

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from delta.gguf_export import export as exporter
from delta.gguf_export.export import export, permuted, restored
from tests.delta import llama_cpp, models
from tests.delta.llama_cpp import LlamaCpp, Tokenizers

Changed = dict[str, Any]
PLAIN = ("gpt2", "smollm", "llama3", "llama3-merges", "qwen2", "pieces-never", "pieces-prepend")
"""Tokenizers of which llama.cpp gives the ids of every text."""
FAMILIES: list[tuple[str, str, Changed]] = [
    ("llama", "pieces-prepend", {}),
    ("llama", "gpt2", {"tie_word_embeddings": True}),
    ("llama", "llama3", {"attention_bias": True, "mlp_bias": True}),
    ("llama", "smollm", {"head_dim": 32, "num_key_value_heads": 4}),
    ("mistral", "pieces-never", {"sliding_window": None}),
    ("mistral", "llama3", {"sliding_window": 256, "tie_word_embeddings": True}),
    ("qwen2", "qwen2", {"tie_word_embeddings": True}),
    ("qwen2", "qwen2", {}),
    ("qwen3", "qwen2", {}),
    ("qwen3", "qwen2", {"tie_word_embeddings": True, "head_dim": 32}),
]
ROPES: list[tuple[str, Changed]] = [
    ("llama", {"rope_type": "linear", "factor": 4.0}),
    ("llama", {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}),
    ("llama", {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64}),
    ("mistral", {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}),
    ("qwen2", {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}),
    ("qwen3", {"rope_type": "linear", "factor": 2.0}),
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Tokenizers:
    return Tokenizers(tmp_path_factory.mktemp("tokenizers"))


@pytest.fixture
def small(made: Tokenizers, tmp_path: Path) -> Path:
    """A LLaMA with a byte-level tokenizer."""
    llama_cpp.model("llama", made.tokenizer("gpt2"), tmp_path / "model")
    return tmp_path / "model"


def keys(file: Path) -> dict[str, Any]:
    """What a file says besides its tensors."""
    import gguf

    return {name: field.contents() for name, field in gguf.GGUFReader(file).fields.items()}


def stored(file: Path) -> dict[str, Any]:
    """The tensors of a file."""
    import gguf

    return {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}


@pytest.mark.parametrize("kind", PLAIN)
def test_llama_cpp_gives_the_ids_of_every_text(made: Tokenizers, tmp_path: Path, kind: str) -> None:
    words = made.tokenizer(kind)
    llama_cpp.model("llama", words, tmp_path / "model")
    export(tmp_path / "model", tmp_path / "model.gguf")
    engine = LlamaCpp(tmp_path / "model.gguf")
    texts = llama_cpp.texts("<s>", "</s>") + (
        [] if kind.startswith("pieces") else ["a<section>b <section> c"]
    )
    texts += llama_cpp.mixed(300, seed=2)
    assert len(texts) > 500
    differing = [text for text in texts if engine.ids(text) != words(text)["input_ids"]]
    assert differing == []


@pytest.mark.parametrize("kind", PLAIN)
def test_llama_cpp_gives_the_ids_of_random_texts(made: Tokenizers, tmp_path: Path, kind: str) -> None:
    words = made.tokenizer(kind)
    llama_cpp.model("llama", words, tmp_path / "model")
    export(tmp_path / "model", tmp_path / "model.gguf")
    engine = LlamaCpp(tmp_path / "model.gguf")
    known = st.sampled_from([*llama_cpp.TEXTS, "<s>", "</s>", " ", "\n", "'S", "ſ", "İ"])
    kept = st.text(st.characters(codec="utf-8"), max_size=12).map(
        lambda text: unicodedata.normalize("NFC", text)
    )

    @given(st.lists(kept | known, max_size=6).map("".join))
    @settings(max_examples=100, deadline=None, derandomize=True)
    def compare(text: str) -> None:
        composed = unicodedata.normalize("NFC", text)
        assert engine.ids(composed) == words(composed)["input_ids"]

    compare()


@pytest.mark.parametrize("kind", ["pieces-first", "pieces-always"])
def test_where_a_metaspace_differs_a_note_says_so(made: Tokenizers, tmp_path: Path, kind: str) -> None:
    words = made.tokenizer(kind)
    llama_cpp.model("llama", words, tmp_path / "model")
    notes = export(tmp_path / "model", tmp_path / "model.gguf").notes
    assert "begins with a space gets one more" in notes[0]
    engine = LlamaCpp(tmp_path / "model.gguf")
    for text in llama_cpp.texts():
        same = engine.ids(text) == words(text)["input_ids"]
        assert same == (not text.startswith((" ", "▁"))), text


@pytest.mark.parametrize(("family", "kind", "changed"), FAMILIES)
def test_greedy_answers_are_those_of_transformers(
    made: Tokenizers, tmp_path: Path, family: str, kind: str, changed: Changed
) -> None:
    words = made.tokenizer(kind)
    model = llama_cpp.model(family, words, tmp_path / "model", **changed)
    export(tmp_path / "model", tmp_path / "model.gguf", kind="f32")
    assert ("output.weight" in stored(tmp_path / "model.gguf")) != changed.get("tie_word_embeddings", False)
    engine = LlamaCpp(tmp_path / "model.gguf")
    prompts = [words(text)["input_ids"] for text in llama_cpp.CORPUS]
    varied = set()
    for prompt in prompts:
        ids, likely = llama_cpp.expected(model, prompt, 32)
        found, measured = engine.greedy(prompt, 32)
        assert found == ids
        assert all(abs(likely[n].item() - value) < 1e-4 for n, value in measured.items())
        varied.update(ids)
    assert len(varied) > 30


@pytest.mark.parametrize(("family", "rope"), ROPES)
def test_stretched_positions_are_those_of_transformers(
    made: Tokenizers, tmp_path: Path, family: str, rope: Changed
) -> None:
    words = made.tokenizer("qwen2" if "qwen" in family else "gpt2")
    rope = {"rope_theta": 10000.0, **rope}
    changed: Changed = {"rope_parameters": rope}
    if family == "mistral":
        changed["sliding_window"] = None
    model = llama_cpp.model(family, words, tmp_path / "model", **changed)
    export(tmp_path / "model", tmp_path / "model.gguf", kind="f32")
    engine = LlamaCpp(tmp_path / "model.gguf")
    draw = np.random.default_rng(0)
    for length in (20, 63, 200, 400):
        prompt = draw.integers(10, len(words), length).tolist()
        ids, likely = llama_cpp.expected(model, prompt, 24)
        found, measured = engine.greedy(prompt, 24)
        assert found == ids, length
        assert all(abs(likely[n].item() - value) < 1e-4 for n, value in measured.items())


@pytest.mark.parametrize(("kind", "bound"), [("bf16", 0.06), ("f16", 0.02), ("q8_0", 0.2)])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_other_types_are_as_close_as_their_rounding(
    made: Tokenizers, tmp_path: Path, family: str, kind: str, bound: float
) -> None:
    words = made.tokenizer("qwen2" if "qwen" in family else "gpt2")
    model = llama_cpp.model(family, words, tmp_path / "model", initializer_range=0.1)
    export(tmp_path / "model", tmp_path / "model.gguf", kind=kind)
    engine = LlamaCpp(tmp_path / "model.gguf")
    for text in llama_cpp.CORPUS:
        prompt = words(text)["input_ids"]
        _, likely = llama_cpp.expected(model, prompt, 1)
        found, measured = engine.greedy(prompt, 1)
        assert all(abs(likely[n].item() - value) < bound for n, value in measured.items())
        assert likely.max() - likely[found[0]] < bound


def test_the_default_type_is_that_of_a_bf16_model_and_bits_are_kept(made: Tokenizers, tmp_path: Path) -> None:
    words = made.tokenizer("qwen2")
    model = llama_cpp.model("qwen2", words, tmp_path / "model", dtype="bfloat16")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export(tmp_path / "model", tmp_path / "model.gguf")
    found = stored(tmp_path / "model.gguf")
    assert keys(tmp_path / "model.gguf")["general.file_type"] == 32
    ours = before["model.layers.1.self_attn.q_proj.weight"].view(torch.int16).numpy().view(np.uint8)
    assert np.array_equal(found["blk.1.attn_q.weight"].data, ours)
    bias = found["blk.1.attn_q.bias"]
    assert bias.tensor_type.name == "F32"
    assert np.array_equal(bias.data, before["model.layers.1.self_attn.q_proj.bias"].float().numpy())


def test_shards_and_the_default_type_of_an_fp32_model(made: Tokenizers, tmp_path: Path) -> None:
    words = made.tokenizer("gpt2")
    model = llama_cpp.model("llama", words, tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    words.save_pretrained(tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    for name in ("whole", "shards"):
        export(tmp_path / name, tmp_path / f"{name}.gguf", force=True)
    one, other = stored(tmp_path / "whole.gguf"), stored(tmp_path / "shards.gguf")
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name].data, other[name].data) for name in one)
    assert one["blk.0.ffn_up.weight"].tensor_type.name == "F16"


def test_q8_0_leaves_rows_that_no_block_divides_in_f16_and_says_so(made: Tokenizers, tmp_path: Path) -> None:
    words = made.tokenizer("gpt2")
    llama_cpp.model("llama", words, tmp_path / "model", intermediate_size=72)
    done = export(tmp_path / "model", tmp_path / "model.gguf", kind="q8_0")
    assert done.kinds == {"f16": 2, "f32": 5, "q8_0": 14}
    assert "not a multiple of 32" in done.notes[0]
    assert stored(tmp_path / "model.gguf")["blk.0.ffn_down.weight"].tensor_type.name == "F16"


def test_what_the_file_and_the_modelfile_say(made: Tokenizers, tmp_path: Path) -> None:
    words = made.tokenizer("gpt2")
    words.chat_template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    folder = tmp_path / "my-run" / "model"
    llama_cpp.model("mistral", words, folder, sliding_window=128)
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# A model\n")
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 4]}')
    code, said = models.delta("gguf", "--model", folder, "--output", tmp_path / "m.gguf", "--type", "f16")
    assert code == 0, said
    assert "compared with" in said
    assert "the context is 128, the sliding window" in said
    told = keys(tmp_path / "m.gguf")
    expected = {
        "general.architecture": "llama", "general.name": "my-run", "general.license": "cc-by-4.0",
        "general.file_type": 1, "llama.context_length": 128, "llama.attention.sliding_window": 128,
        "llama.embedding_length": 64, "llama.block_count": 2, "llama.feed_forward_length": 96,
        "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2, "llama.attention.key_length": 16,
        "llama.attention.value_length": 16, "llama.rope.dimension_count": 16, "llama.rope.freq_base": 10000.0,
        "llama.vocab_size": len(words) + 3, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.eot_token_id": 4,
        "tokenizer.ggml.padding_token_id": 2, "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": words.chat_template,
    }  # fmt: skip
    assert {name: told[name] for name in expected} == expected
    assert told["tokenizer.ggml.tokens"][-4:] == [
        "<section>",
        *(f"[UNUSED_{len(words) + n}]" for n in range(3)),
    ]
    assert told["tokenizer.ggml.token_type"][-4:] == [4, 5, 5, 5]
    assert (tmp_path / "Modelfile").read_text() == (
        'FROM ./m.gguf\nPARAMETER stop "</s>"\nPARAMETER stop "<|stop|>"\nPARAMETER num_ctx 128\n'
    )


CHATS = [
    [{"role": "user", "content": "What is claimed?"}],
    [{"role": "user", "content": "电池"}, {"role": "assistant", "content": "an electrode"},
     {"role": "user", "content": "and  more?\n"}],
]  # fmt: skip
BARE = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}{{ 'assistant:' }}"


@pytest.mark.parametrize("template", ["llama2", "linly", "alpaca", "bare"])
@pytest.mark.parametrize("kind", ["pieces-first", "pieces-prepend", "llama3"])
def test_a_chat_is_prompted_and_answered_as_by_transformers(
    made: Tokenizers, tmp_path: Path, kind: str, template: str
) -> None:
    from data.chat.chat_template import install

    words = made.tokenizer(kind)
    if template == "bare":
        words.chat_template = BARE
    else:
        install(words, template)
    model = llama_cpp.model("llama", words, tmp_path / "model")
    export(tmp_path / "model", tmp_path / "model.gguf", kind="f32")
    engine = LlamaCpp(tmp_path / "model.gguf")
    for chat in CHATS:
        prompt = words.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert engine.ids(engine.post("/apply-template", messages=chat)["prompt"]) == prompt
        told = engine.post(
            "/v1/chat/completions", messages=chat, max_tokens=24, temperature=0, logprobs=True, top_logprobs=1
        )
        assert told["usage"]["prompt_tokens"] == len(prompt)
        ids, _ = llama_cpp.expected(model, prompt, 24)
        found = [each["id"] for each in told["choices"][0]["logprobs"]["content"]]
        rest = iter(ids)
        assert found  # llama.cpp lists no token that is a part of a character
        assert all(number in rest for number in found)


@pytest.mark.parametrize("kind", ["bf16", "f16", "f32"])
def test_not_a_number_is_kept(made: Tokenizers, tmp_path: Path, kind: str) -> None:
    model = llama_cpp.model("llama", made.tokenizer("gpt2"), tmp_path / "model")
    with torch.no_grad():
        model.lm_head.weight[3, 5], model.lm_head.weight[3, 6] = torch.nan, -torch.inf
    model.save_pretrained(tmp_path / "model")
    export(tmp_path / "model", tmp_path / "model.gguf", kind=kind)
    import gguf

    tensor = stored(tmp_path / "model.gguf")["output.weight"]
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    assert np.isnan(values[3, 5])
    assert values[3, 6] == -np.inf


def test_a_file_that_differs_from_the_model_never_appears(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = exporter.encode

    def wrong(piece: bytes, each: exporter.Planned) -> bytes:
        found = encode(piece, each)
        return found if each.name != "blk.1.attn_k.weight" else found[::-1]

    monkeypatch.setattr(exporter, "encode", wrong)
    with pytest.raises(RuntimeError, match=r"blk\.1\.attn_k\.weight differs from"):
        export(small, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


@given(heads=st.integers(1, 4), half=st.integers(1, 8), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_rotating_neighbours_after_permuting_is_rotating_halves(heads: int, half: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    rows = draw.standard_normal((heads * 2 * half, 3))
    assert np.array_equal(restored(permuted(rows, 2 * half), 2 * half), rows)
    angles = draw.standard_normal((half, 1))
    first, second = np.split(rows.reshape(heads, 2 * half, 3), 2, axis=1)
    halves = np.concatenate(
        [first * np.cos(angles) - second * np.sin(angles), second * np.cos(angles) + first * np.sin(angles)],
        1,
    )
    pairs = permuted(rows, 2 * half).reshape(heads, half, 2, 3)
    x, y = pairs[:, :, 0], pairs[:, :, 1]
    turned = np.stack(
        [x * np.cos(angles) - y * np.sin(angles), y * np.cos(angles) + x * np.sin(angles)], axis=2
    )
    assert np.allclose(turned.reshape(-1, 3), permuted(halves.reshape(-1, 3), 2 * half))
