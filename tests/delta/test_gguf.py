"""A GGUF file is the model: llama.cpp gives transformers' token ids and greedy answers, and what it cannot be
given exactly is refused by name."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
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
from tests.delta.llama_cpp import LlamaCpp

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


@dataclass(frozen=True)
class Made:
    """Tokenizers of a test session, by kind."""

    folder: Path

    def tokenizer(self, kind: str) -> Any:
        """As transformers loads it; made when it is first asked for."""
        from transformers import AutoTokenizer

        place = self.folder / kind
        return AutoTokenizer.from_pretrained(place) if place.exists() else llama_cpp.tokenizer(kind, place)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("tokenizers"))


@pytest.fixture
def small(made: Made, tmp_path: Path) -> Path:
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
def test_llama_cpp_gives_the_ids_of_every_text(made: Made, tmp_path: Path, kind: str) -> None:
    words = made.tokenizer(kind)
    llama_cpp.model("llama", words, tmp_path / "model")
    export(tmp_path / "model", tmp_path / "model.gguf")
    engine = LlamaCpp(tmp_path / "model.gguf")
    texts = llama_cpp.texts("<s>", "</s>") + (
        [] if kind.startswith("pieces") else ["a<section>b <section> c"]
    )
    assert len(texts) > 200
    differing = [text for text in texts if engine.ids(text) != words(text)["input_ids"]]
    assert differing == []


@pytest.mark.parametrize("kind", ["pieces-first", "pieces-always"])
def test_where_a_metaspace_differs_a_note_says_so(made: Made, tmp_path: Path, kind: str) -> None:
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
    made: Made, tmp_path: Path, family: str, kind: str, changed: Changed
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
    made: Made, tmp_path: Path, family: str, rope: Changed
) -> None:
    words = made.tokenizer("qwen2" if "qwen" in family else "gpt2")
    rope = {"rope_theta": 10000.0, **rope}
    model = llama_cpp.model(
        family,
        words,
        tmp_path / "model",
        rope_parameters=rope,
        **({"sliding_window": None} if family == "mistral" else {}),
    )
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
    made: Made, tmp_path: Path, family: str, kind: str, bound: float
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


def test_the_default_type_is_that_of_a_bf16_model_and_bits_are_kept(made: Made, tmp_path: Path) -> None:
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


def test_shards_and_the_default_type_of_an_fp32_model(made: Made, tmp_path: Path) -> None:
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


def test_q8_0_leaves_rows_that_no_block_divides_in_f16_and_says_so(made: Made, tmp_path: Path) -> None:
    words = made.tokenizer("gpt2")
    llama_cpp.model("llama", words, tmp_path / "model", intermediate_size=72)
    done = export(tmp_path / "model", tmp_path / "model.gguf", kind="q8_0")
    assert done.kinds == {"f16": 2, "f32": 5, "q8_0": 14}
    assert "not a multiple of 32" in done.notes[0]
    assert stored(tmp_path / "model.gguf")["blk.0.ffn_down.weight"].tensor_type.name == "F16"


def test_what_the_file_and_the_modelfile_say(made: Made, tmp_path: Path) -> None:
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
    made: Made, tmp_path: Path, kind: str, template: str
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
        told = engine.post(
            "/v1/chat/completions", messages=chat, max_tokens=24, temperature=0, logprobs=True, top_logprobs=1
        )
        assert told["usage"]["prompt_tokens"] == len(prompt)
        ids, _ = llama_cpp.expected(model, prompt, 24)
        found = [each["id"] for each in told["choices"][0]["logprobs"]["content"]]
        rest = iter(ids)
        assert found  # llama.cpp lists no token that is a part of a character
        assert all(number in rest for number in found)


@pytest.mark.parametrize("change", [
    ({"model_type": "gpt2"}, "model_type='gpt2'"),
    ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
    ({"num_hidden_layers": 3}, "model.layers.2.input_layernorm.weight is missing"),
    ({"num_hidden_layers": 1}, "model.layers.1."),
    ({"num_key_value_heads": 4}, "but config.json says (64, 64)"),
    ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "rope_type='dynamic'"),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4, "beta_fast": 16.0,
                          "original_max_position_embeddings": 64}}, "beta_fast=16.0 of yarn"),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
     "partial_rotary_factor=0.5"),
    ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes"),
])  # fmt: skip
def test_a_configuration_that_llama_cpp_does_not_compute_is_refused(
    small: Path, change: tuple[Changed, str]
) -> None:
    path = small / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change[0]))
    refused(small, change[1])


@pytest.mark.parametrize(("family", "changed", "words"), [
    ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "sliding_attention"),
    ("qwen3", {"attention_bias": True}, "attention_bias"),
    ("qwen2", {"rope_parameters": {"rope_theta": 1e4, **ROPES[2][1]}}, "in a qwen2 model"),
    ("gemma2", {}, "model_type='gemma2'"),
])  # fmt: skip
def test_a_family_s_settings_without_counterpart_are_refused(
    made: Made, tmp_path: Path, family: str, changed: Changed, words: str
) -> None:
    llama_cpp.model(family, made.tokenizer("qwen2"), tmp_path / "model", **changed)
    refused(tmp_path / "model", words)


def spec_changed(change: Callable[[Changed], None]) -> Callable[[Path], None]:
    """Change tokenizer.json."""

    def apply(folder: Path) -> None:
        path = folder / "tokenizer.json"
        spec = json.loads(path.read_text())
        change(spec)
        path.write_text(json.dumps(spec))

    return apply


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def truncated(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 5000)


def too_many_tokens(spec: Changed) -> None:
    spec["model"]["vocab"]["<far>"] = 600


def stripping(spec: Changed) -> None:
    spec["added_tokens"][-1]["lstrip"] = True


def other_words(spec: Changed) -> None:
    spec["pre_tokenizer"] = {"type": "Whitespace"}


def other_pattern(spec: Changed) -> None:
    split = {"type": "Split", "pattern": {"Regex": "\\d|\\D+"}, "behavior": "Isolated", "invert": False}
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, last]}


def lower_case(spec: Changed) -> None:
    spec["normalizer"] = {"type": "Lowercase"}


def word_pieces(spec: Changed) -> None:
    vocab = spec["model"]["vocab"]
    spec["model"] = {"type": "WordLevel", "vocab": vocab, "unk_token": "<s>"}


@pytest.mark.parametrize(("change", "words"), [
    (without_tokenizer, "no tokenizer"),
    (truncated, "model.safetensors"),
    (spec_changed(too_many_tokens), "'<far>' has id 600, but the embedding has 527 rows"),
    (spec_changed(stripping), "has lstrip"),
    (spec_changed(other_words), "pre_tokenizer Whitespace"),
    (spec_changed(other_pattern), r"pre_tokenizer \d|\D+, ByteLevel"),
    (spec_changed(lower_case), "normalizer Lowercase"),
    (spec_changed(word_pieces), "WordLevel"),
])  # fmt: skip
def test_files_that_do_not_fit_are_refused(small: Path, change: Callable[[Path], None], words: str) -> None:
    change(small)
    refused(small, words)


def swapped(spec: Changed) -> None:
    pairs = spec["model"]["merges"]
    first = next(n for n in range(len(pairs)) if "".join(pairs[n]) == "".join(pairs[n + 1]))
    pairs.append(pairs.pop(first))


def dropped(spec: Changed) -> None:
    pairs = spec["model"]["merges"]
    made = ["".join(pair) for pair in pairs]
    del pairs[next(n for n in range(len(pairs)) if made.count(made[n]) > 1)]


def without_a_byte(spec: Changed) -> None:
    vocab = spec["model"]["vocab"]
    vocab["<odd>"] = vocab.pop("<0x41>")


def normalized(spec: Changed) -> None:
    spec["added_tokens"][1]["normalized"] = True


@pytest.mark.parametrize(("change", "words"), [
    (swapped, "do not follow each other"),
    (dropped, "they are not merged"),
    (without_a_byte, "no token <0x41>"),
    (normalized, "is normalized"),
])  # fmt: skip
def test_pieces_that_are_not_sentencepiece_s_are_refused(
    made: Made, tmp_path: Path, change: Callable[[Changed], None], words: str
) -> None:
    llama_cpp.model("llama", made.tokenizer("pieces-prepend"), tmp_path / "model")
    spec_changed(change)(tmp_path / "model")
    refused(tmp_path / "model", words)


def test_an_adapter_is_refused_with_the_command_that_merges_it(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "adapter_config.json").write_text("{}")
    refused(tmp_path / "model", "python -m sft merge")


@pytest.mark.parametrize(("kind", "value", "words"), [
    ("f16", 70000.0, "value of 70000"), ("q8_0", float("nan"), "NaN"), ("q8_0", 1e9, "value of 1e+09"),
])  # fmt: skip
def test_values_that_a_type_cannot_hold_are_refused_by_the_tensor(
    made: Made, tmp_path: Path, kind: str, value: float, words: str
) -> None:
    model = llama_cpp.model("llama", made.tokenizer("gpt2"), tmp_path / "model")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = value
    model.save_pretrained(tmp_path / "model")
    assert "model.layers.1.mlp.up_proj.weight" in refused(tmp_path / "model", words, "--type", kind)


@pytest.mark.parametrize("kind", ["bf16", "f16", "f32"])
def test_not_a_number_is_kept(made: Made, tmp_path: Path, kind: str) -> None:
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


def test_an_existing_file_is_kept_without_force_and_whatever_fails(small: Path, tmp_path: Path) -> None:
    file = tmp_path / "out" / "model.gguf"
    assert models.delta("gguf", "--model", small, "--output", file)[0] == 0
    before = file.read_bytes()
    code, said = models.delta("gguf", "--model", small, "--output", file, "--type", "f32")
    assert (code, "already exists" in said) == (2, True)
    spec_changed(stripping)(small)
    code, said = models.delta("gguf", "--model", small, "--output", file, "--type", "f32", "--force")
    assert code == 2
    assert file.read_bytes() == before
    assert {path.name for path in file.parent.iterdir()} - {".model.gguf.lock"} == {"Modelfile", "model.gguf"}
    for place in (tmp_path / "model.bin", tmp_path / "folder.gguf"):
        (tmp_path / "folder.gguf").mkdir(exist_ok=True)
        assert models.delta("gguf", "--model", small, "--output", place, "--force")[0] == 2


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_place_that_cannot_be_written_to_is_named(small: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    code, said = models.delta("gguf", "--model", small, "--output", tmp_path / "closed" / "model.gguf")
    assert code == 2
    assert str(tmp_path / "closed") in said


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


def refused(model: Path, words: str, *more: object) -> str:
    """The message with which the command ends; nothing is written."""
    output = model.parent / "refused" / "model.gguf"
    output.parent.mkdir()
    code, said = models.delta("gguf", "--model", model, "--output", output, *more)
    assert code == 2, said
    assert words in said
    assert str(model) in said
    assert {path.name for path in output.parent.iterdir()} <= {".model.gguf.lock"}
    return said
