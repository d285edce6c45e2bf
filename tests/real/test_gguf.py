"""llama.cpp gives the ids of published SentencePiece models."""

import json
from pathlib import Path

import pytest

from delta.gguf_export.export import export
from tests.delta import llama_cpp


@pytest.mark.parametrize("name", ["llama_tokenizer", "chinese_llama2_tokenizer", "chinese_sp"])
def test_the_ids_of_a_published_tokenizer(real: Path, tmp_path: Path, name: str) -> None:
    from transformers import AutoTokenizer

    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes((real / "tokenizers" / f"{name}.model").read_bytes())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"})
    )
    words = AutoTokenizer.from_pretrained(folder)
    llama_cpp.model("llama", words, tmp_path / "model", hidden_size=32, head_dim=8, num_hidden_layers=1)
    export(tmp_path / "model", tmp_path / "model.gguf")
    engine = llama_cpp.LlamaCpp(tmp_path / "model.gguf")
    texts = [text for text in llama_cpp.texts() if not text.startswith((" ", "▁"))]
    texts += [" ".join(texts[:40]), "".join(texts[40:80]) * 3]
    assert len(texts) > 150
    differing = [text for text in texts if engine.ids(text) != words(text)["input_ids"]]
    assert differing == []
