"""The memory of words gives SentencePiece's ids, or is not used."""

import io
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from data.packing.word_cache import LEAST_SPACES, word_encoder

LINES = ["the pump has a housing and the housing has a shaft, so that the pump turns", "水泵包括壳体和泵轴"]
LIKE_LLAMA = {"byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False}


def train(**settings: Any) -> Any:
    model = io.BytesIO()
    given: dict[str, Any] = {"vocab_size": 330, "allow_whitespace_only_pieces": True, "minloglevel": 2}
    given |= {"model_type": "bpe", "hard_vocab_limit": False, **LIKE_LLAMA, **settings}
    lines = iter(LINES * 20)
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=lines, model_writer=model, **given)
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


MODEL = train()
ENCODE = word_encoder(MODEL)


@given(st.text(st.sampled_from("the pump  \n\t水泵,.x\u2581\u00a0\u3000é\U0001d465")))
def test_the_ids_are_those_of_the_whole_text(text: str) -> None:
    assert ENCODE is not None
    for each in (text, text):  # not known, and known
        assert ENCODE(each) in (None, MODEL.encode(each))


def test_words_are_looked_up_where_there_are_spaces() -> None:
    assert ENCODE is not None
    for text in ("the pump\n  turns", "the pump.\n\nthe  shaft\n", "\u2581the pump \u2581 has"):
        assert ENCODE(text) == MODEL.encode(text)
    assert all(ENCODE(text) is None for text in (" the pump", "\nthe pump", "the pump ", "the \npump", ""))
    assert ENCODE("水泵包括" * 20 + " 和" * int(80 * LEAST_SPACES)) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"model_type": "unigram", "vocab_size": 320},
        {"byte_fallback": False},
        {"normalization_rule_name": "nmt_nfkc"},
        {"remove_extra_whitespaces": True},
        {"add_dummy_prefix": False},
        {"treat_whitespace_as_suffix": True},
        {"user_defined_symbols": ["the pump"]},
        {"user_defined_symbols": ["the\u2581pump"]},
        {"user_defined_symbols": ["\n\n"]},
        {"split_by_whitespace": False},
    ],
    ids=str,
)
def test_a_model_whose_words_are_not_independent_is_not_cut(settings: dict[str, Any]) -> None:
    assert word_encoder(train(**settings)) is None


@pytest.mark.parametrize(
    "settings", [{"user_defined_symbols": ["<sep>", "\n"]}, {"split_digits": True}], ids=str
)
def test_other_settings_do_not_matter(settings: dict[str, Any]) -> None:
    model = train(**settings)
    encode = word_encoder(model)
    assert encode is not None
    for text in ("the<sep>pump <sep> has\na  shaft 12 345", "so that\n\n\nthe pump 1 turns"):
        assert encode(text) == model.encode(text)
