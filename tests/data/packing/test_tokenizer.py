"""The corpus's tokenizer: the ids of SentencePiece itself, text comes back from them, mistakes are named."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from core.errors import UserError
from data.packing.tokenizer import (
    TokenizerConfig,
    choose_encoder,
    open_encoder,
    prepare_tokenizer,
    record_texts,
)
from data.record import Record

SENTENCES = [
    text.format(i)
    for i in range(200)
    for text in (
        "本发明公开了一种半导体装置及其制造方法，包括衬底与第{}导电层。",
        "A semiconductor device {} comprises a substrate and a  conductive layer; see 10³ m.\nIt works.",
    )
]
SPECIAL = ("<s>", "</s>", "<unk>", "<pad>")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tokenizer that was trained on the sentences above."""
    made = tmp_path_factory.mktemp("tokenizer")
    prepare_tokenizer(TokenizerConfig(vocabulary_size=450), iter(SENTENCES), made)
    return made


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> Any:
    """The same, opened as a user opens it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def reference(folder: Path) -> Any:
    """SentencePiece's own reader of the trained model."""
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def encode(tokenizer: Any, text: str) -> list[int]:
    """Ids without beginning and end, as the corpus is packed."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def test_a_trained_tokenizer_has_so_many_pieces_and_four_special_tokens(tokenizer: Any) -> None:
    assert len(tokenizer) == 450
    ids = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id]
    assert None not in ids
    assert len(set(ids)) == 4
    assert max(tokenizer.get_vocab().values()) == 449
    assert tokenizer("pump")["input_ids"][0] == tokenizer.bos_token_id


ORDINARY = [
    "A semiconductor device",
    "本发明公开了一种半导体装置",
    "claim 1, wherein 12345.678 mm",
    "两种 mixed 文字 in 2024年",
    "a  b   c",
    "first\n\nsecond\n 1. third",
    "tab\tand\r\nreturn",
    "🔬 and 👩‍🔬",
    "10³ m², H₂O, é e\u0301",
    "全角\u3000空格",
    "trailing ",
    "<0x0A> and <sub>2</sub>",
    "\x00",
    "",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ids_are_those_of_sentencepiece(tokenizer: Any, reference: Any, text: str) -> None:
    assert encode(tokenizer, text) == reference.encode(text)


@pytest.mark.parametrize("text", ORDINARY)
def test_text_comes_back_from_its_ids(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(encode(tokenizer, text)) == text


@settings(deadline=None)
@given(text=st.text() | st.text(st.sampled_from("a1 \n\t.，本😀é")))
def test_any_text_comes_back_but_for_a_leading_space_and_the_sign_of_a_space(
    tokenizer: Any, reference: Any, text: str
) -> None:
    """A space at the beginning is taken for the one that SentencePiece puts there, where SentencePiece itself
    puts a second one; cleaned text never begins with a space. `▁` (U+2581) stands for a space in the
    vocabulary. The names of special tokens, as `</s>`, are taken for those tokens."""
    assume("\u2581" not in text and not any(name in text for name in SPECIAL))
    ids = encode(tokenizer, text)
    assert ids == reference.encode(text) or text.startswith(" ")
    assert tokenizer.decode(ids) == text.removeprefix(" ")


def test_what_the_training_never_saw_becomes_bytes_not_unknown(tokenizer: Any) -> None:
    assert tokenizer.unk_token_id not in encode(tokenizer, "Ωμέγα 한국어 𠀀 \U0010ffff")


def test_digits_stand_alone(tokenizer: Any) -> None:
    pieces = tokenizer.convert_ids_to_tokens(encode(tokenizer, "x 2024"))
    assert pieces[-4:] == ["2", "0", "2", "4"]


@pytest.mark.parametrize("source", ["tokenizer.model", ""])
def test_an_existing_tokenizer_is_taken_as_it_is(
    folder: Path, tokenizer: Any, tmp_path: Path, source: str
) -> None:
    from transformers import AutoTokenizer

    config = TokenizerConfig(path=str(folder / source))
    prepare_tokenizer(config, iter(()), tmp_path)
    taken = AutoTokenizer.from_pretrained(tmp_path)
    assert taken.get_vocab() == tokenizer.get_vocab()
    for name in ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id"):
        assert getattr(taken, name) == getattr(tokenizer, name)
    for text in ORDINARY:
        assert encode(taken, text) == encode(tokenizer, text)


def test_a_training_reads_so_much_text_and_no_more(tmp_path: Path) -> None:
    config = TokenizerConfig(vocabulary_size=400, training_characters=20_000)
    assert len(prepare_tokenizer(config, itertools.cycle(SENTENCES), tmp_path)) == 400


@pytest.mark.parametrize(
    ("texts", "size", "words"),
    [
        (SENTENCES, 5000, "vocabulary_size=5000 is too large: the corpus has at most 514 pieces"),
        (["本"], 300, "vocabulary_size=300 is too large: the corpus has at most 263 pieces"),
        (
            list(map(chr, range(0x4E00, 0x4E00 + 900))),
            400,
            "vocabulary_size=400 is too small: the corpus needs at least 1161",
        ),
        ([], 450, "vocabulary_size=450: training on the corpus failed"),
    ],
)
def test_a_size_that_does_not_suit_the_text_is_refused_with_one_that_does(
    tmp_path: Path, texts: list[str], size: int, words: str
) -> None:
    with pytest.raises(UserError) as caught:
        prepare_tokenizer(TokenizerConfig(vocabulary_size=size), iter(texts), tmp_path)
    assert words in str(caught.value)


def test_the_largest_size_that_a_refusal_names_can_be_trained(tmp_path: Path) -> None:
    assert len(prepare_tokenizer(TokenizerConfig(vocabulary_size=514), iter(SENTENCES), tmp_path)) == 514


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[: len(whole) // 2], lambda _: b"", lambda _: b"not a model"]
)
def test_a_damaged_model_file_is_refused(folder: Path, tmp_path: Path, damage: Any) -> None:
    (tmp_path / "base.model").write_bytes(damage((folder / "tokenizer.model").read_bytes()))
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="not a valid SentencePiece model"):
        prepare_tokenizer(TokenizerConfig(path=str(tmp_path / "base.model")), iter(()), tmp_path / "out")


def test_a_tokenizer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.path=.*no\.model: file not found"):
        prepare_tokenizer(TokenizerConfig(path=str(tmp_path / "no.model")), iter(()), tmp_path)
    with pytest.raises(UserError, match="the tokenizer cannot be loaded"):
        prepare_tokenizer(TokenizerConfig(path=str(tmp_path)), iter(()), tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"path": "a", "vocabulary_size": 500},
        {"vocabulary_size": 10},
        {"path": "a", "training_characters": 1},
    ],
)
def test_a_tokenizer_is_either_given_or_trained(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TokenizerConfig(**settings)


def test_the_training_sees_every_text_of_a_record() -> None:
    fields = {"title": "T", "abstract": None, "description": "D", "claims": ["1", "2"]}
    records: Any = [fields, {**fields, "title": None, "abstract": "A", "claims": None}]
    texts: list[Record] = records
    assert list(record_texts(iter(texts))) == ["T", "D", "1", "2", "A", "D"]


def test_sentencepiece_encodes_where_it_gives_the_same_ids_and_only_there(tmp_path: Path) -> None:
    """A model that does not belong to the tokenizer beside it must not be trusted for being quick."""
    texts = ["一种水泵，包括壳体。", "A pump with 12 blades.", "</s> 🙂\n\tend"]
    for name, size in (("one", 450), ("other", 470)):
        (tmp_path / name).mkdir()
        prepare_tokenizer(TokenizerConfig(vocabulary_size=size), iter(SENTENCES), tmp_path / name)
    assert choose_encoder(tmp_path / "one", texts) == "sentencepiece"
    encoded = [open_encoder(tmp_path / "one", kind)(texts) for kind in ("sentencepiece", "tokenizers")]
    assert encoded[0] == encoded[1]
    shutil.copy(tmp_path / "other" / "tokenizer.model", tmp_path / "one" / "tokenizer.model")
    assert choose_encoder(tmp_path / "one", texts) == "tokenizers"
    (tmp_path / "one" / "tokenizer.model").unlink()
    assert choose_encoder(tmp_path / "one", texts) == "tokenizers"
