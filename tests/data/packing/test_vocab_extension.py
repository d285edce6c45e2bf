"""A vocabulary grows: old ids stay, new rows start as the mean of what spelt them."""

from pathlib import Path

import pytest
import torch

from core.config.loader import load
from data.packing.tokenizer import TokenizerConfig, train_sentencepiece
from data.packing.vocab_extension import merge, spelling
from tests.conftest import run

ENGLISH = ["a method for charging a battery", "the device comprises a housing and a lid"] * 50
SHAPE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaMA whose tokenizer knows English only."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("base")
    config = load(TokenizerConfig, None, ["vocabulary_size=320"])
    train_sentencepiece(config, iter(ENGLISH), folder / "tokenizer.model")
    LlamaForCausalLM(LlamaConfig(vocab_size=320, tie_word_embeddings=False, **SHAPE)).save_pretrained(folder)
    return folder


def test_a_model_and_its_tokenizer_are_extended(base: Path, tmp_path: Path) -> None:
    from sentencepiece import SentencePieceProcessor
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert run("data", "synthesize", "--inventions", "60", "--output", tmp_path / "raw").returncode == 0
    done = run(
        "data", "tokenizer", "extend", "--base", base, "--vocabulary-size", "1400", "--output",
        tmp_path / "new", tmp_path / "raw",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tokens per character" in done.stdout
    old = SentencePieceProcessor(model_file=str(base / "tokenizer.model"))
    new = SentencePieceProcessor(model_file=str(tmp_path / "new" / "tokenizer.model"))
    assert [new.id_to_piece(i) for i in range(320)] == [old.id_to_piece(i) for i in range(320)]
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (base, tmp_path / "new"))
    assert after.config.vocab_size % 64 == 0
    assert (
        after.config.vocab_size
        >= new.get_piece_size()
        == len(AutoTokenizer.from_pretrained(tmp_path / "new"))
    )
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        was, now = before.state_dict()[name], after.state_dict()[name]
        assert torch.equal(now[:320], was)
        for number in range(320, new.get_piece_size(), 50):
            ids = spelling(old, new.id_to_piece(number))
            assert old.decode(ids).strip() == new.id_to_piece(number).replace("▁", " ").strip()
            torch.testing.assert_close(now[number], was[ids].mean(0))
    ids = new.encode("一种方法")
    assert len(ids) < len(old.encode("一种方法"))


def test_merging_appends_only_what_is_new_with_score_0(base: Path, tmp_path: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    own = (base / "tokenizer.model").read_bytes()
    assert merge(own, own) == own
    config = load(TokenizerConfig, None, ["vocabulary_size=330"])
    train_sentencepiece(
        config, iter(["ein Verfahren zum Laden einer Batterie"] * 50), tmp_path / "more.model"
    )
    (tmp_path / "both.model").write_bytes(merge(own, (tmp_path / "more.model").read_bytes()))
    both = SentencePieceProcessor(model_file=str(tmp_path / "both.model"))
    pieces = [both.id_to_piece(i) for i in range(both.get_piece_size())]
    assert len(pieces) == len(set(pieces)) > 320
    assert all(both.get_score(i) == 0 for i in range(320, len(pieces)))


def test_a_base_without_a_sentencepiece_model_is_refused(tmp_path: Path) -> None:
    done = run(
        "data", "tokenizer", "extend", "--base", tmp_path, "--vocabulary-size", "400", "--output",
        tmp_path / "new", tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert "tokenizer.model" in done.stderr
