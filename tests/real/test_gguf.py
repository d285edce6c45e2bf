"""llama.cpp gives the ids of published SentencePiece models."""

import json
from pathlib import Path

import pytest

from core.errors import UserError
from delta.gguf_export.export import export
from tests.delta import llama_cpp


@pytest.mark.parametrize("name", ["llama_tokenizer", "chinese_llama2_tokenizer"])
def test_the_ids_of_a_published_tokenizer(real: Path, tmp_path: Path, name: str) -> None:
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(with_model(real, tmp_path, name))
    export(tmp_path / "model", tmp_path / "model.gguf")
    engine = llama_cpp.LlamaCpp(tmp_path / "model.gguf")
    texts = [text for text in llama_cpp.texts() if not text.startswith((" ", "▁"))]
    texts += [" ".join(texts[:40]), "".join(texts[40:80]) * 3]
    assert len(texts) > 150
    differing = [text for text in texts if engine.ids(text) != words(text)["input_ids"]]
    assert differing == []


def test_pieces_without_bytes_are_refused(real: Path, tmp_path: Path) -> None:
    with_model(real, tmp_path, "chinese_sp")
    with pytest.raises(UserError, match="no token <0x00>"):
        export(tmp_path / "model", tmp_path / "model.gguf")


def with_model(real: Path, tmp_path: Path, name: str) -> Path:
    """A tiny model with a published tokenizer.model."""
    from transformers import AutoTokenizer

    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes((real / "tokenizers" / f"{name}.model").read_bytes())
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    words = AutoTokenizer.from_pretrained(folder)
    llama_cpp.model("llama", words, tmp_path / "model", hidden_size=32, head_dim=8, num_hidden_layers=1)
    return tmp_path / "model"
