"""Keys, n-grams, signatures and Jaccard against plain Python: what the kernels say is what sets of strings
say."""

import unicodedata
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.dedup.minhash import EMPTY, grams, jaccard, signatures
from data.dedup.normalise import digests, fold, kernel

CHARACTERS, WORDS = 4, 2
ALPHABETS = st.sampled_from(["一種裝置种装置其，。（） \n1ａA", "abc ABC,.-éß\u3000가나다", "𠀋一二𠀀a ，"])
TEXTS = ALPHABETS.flatmap(lambda alphabet: st.text(st.sampled_from(alphabet), max_size=60))
TO_SIMPLIFIED = str.maketrans("種裝", "种装")


def key_of(text: str) -> list[str]:
    """The characters or words of a text's key, the slow way."""
    letters = [unicodedata.normalize("NFKC", letter).lower().translate(TO_SIMPLIFIED) for letter in text]
    cleaned = "".join(letter if unicodedata.category(letter)[0] in "LNM" else " " for letter in letters)
    han = sum("\u3000" <= letter <= "\u9fff" for letter in text)
    if not han or 12 * han < len(text.encode()):
        return cleaned.split()
    units = "".join(cleaned.split()).encode("utf-16-le", "surrogatepass")
    return [units[i : i + 2].hex() for i in range(0, len(units), 2)]


def gram_set(text: str, characters: int = CHARACTERS, words: int = WORDS) -> set[tuple[str, ...]]:
    parts = key_of(text)
    n = words if fold([text]).words[0] else characters
    return {tuple(parts[i : i + n]) for i in range(max(1, len(parts) - n + 1))} if parts else set()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("一种车辆的控制装置，其特征在于", "一種車輛的控制裝置 其特徵在於"),  # Traditional
        ("检测ＣＰＵ温度１０", "检测 cpu 温度 10"),  # width and case
        ("A method, comprising:\n1 step", "a METHOD  comprising 1 step"),
        ("발명의 명칭", "발명의\u3000명칭."),
        ("發動機𠀋", "发动机𠀋"),
    ],
)
def test_what_differs_only_in_writing_has_one_key(one: str, other: str) -> None:
    found = digests(fold([one, other]))
    assert (found[0] == found[1]).all()


@pytest.mark.parametrize(("one", "other"), [("ab c", "a bc"), ("装置", "置装"), ("一", "二"), ("a1", "a2")])
def test_what_differs_in_words_has_two_keys(one: str, other: str) -> None:
    found = digests(fold([one, other]))
    assert (found[0] != found[1]).any()


def test_languages_without_spaces_are_compared_by_characters() -> None:
    texts = ["本发明涉及CPU", "この発明は装置に関する", "본 발명은 장치", "the invention 装", "", "1.2"]
    assert fold(texts).words.tolist() == [False, False, True, True, True, True]


def test_a_slice_of_an_arrow_column_and_nulls_are_taken_as_they_are() -> None:
    column = pa.array(["x", "alpha beta", None, "装置"])
    keys = fold(column.slice(1))
    assert keys.bounds.tolist() == [0, 10, 10, 12]
    assert keys.units[:5].tobytes().decode("utf-16-le") == "alpha"
    assert not digests(keys)[1].any()


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_grams_differ_where_strings_differ(text: str) -> None:
    hashes, bounds = grams(fold([text]), CHARACTERS, WORDS)
    assert bounds.tolist() == [0, len(hashes)]
    assert len(set(hashes.tolist())) == len(gram_set(text))


@settings(max_examples=150, deadline=None)
@given(TEXTS, TEXTS)
def test_jaccard_is_that_of_the_sets(one: str, other: str) -> None:
    a, b = gram_set(one), gram_set(other)
    same_kind = fold([one]).words[0] == fold([other]).words[0]
    expected = len(a & b) / len(a | b) if a and b and same_kind else 0.0
    assert jaccard(one, other, CHARACTERS, WORDS) == pytest.approx(expected)


def edited(text: str, edits: int, rng: Random) -> str:
    letters = list(text)
    for _ in range(edits):
        letters[rng.randrange(len(letters))] = chr(rng.randrange(0x4E00, 0x9FA5))
    return "".join(letters)


@pytest.mark.parametrize("length", [40, 300, 3000])
def test_signatures_agree_as_often_as_jaccard_says(length: int) -> None:
    rng = Random(length)
    bins, differences = 256, []
    for edits in (length // 200, length // 60, length // 20):
        for _ in range(20):
            text = "".join(chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(length))
            other = edited(text, edits, rng)
            a, b = signatures(fold([text, other]), 8, 5, bins)
            differences.append((a == b).mean() - jaccard(text, other, 8, 5))
    # 256 independent hashes would be off by 0.03 at most on average, and by nothing over many pairs.
    assert np.sqrt(np.square(differences).mean()) < 0.04
    assert abs(np.mean(differences)) < 0.012


def test_signatures_do_not_depend_on_what_stands_beside_and_only_nothing_has_an_empty_one() -> None:
    texts = ["", "装置", "the method of claim 1", "本发明涉及一种车辆的控制装置" * 30, "!"]
    together = signatures(fold(texts), 8, 5, 64)
    for text, signature in zip(texts, together, strict=True):
        assert (signatures(fold([text]), 8, 5, 64)[0] == signature).all()
    assert (together == EMPTY).all(axis=1).tolist() == [True, False, False, False, True]
    assert not (together[1:4] == EMPTY).any()


def test_kernels_run_where_nothing_may_be_written() -> None:
    names: dict[str, object] = {}
    exec(compile("def twice(x):\n    return 2 * x", "<no file to keep machine code beside>", "exec"), names)
    function = names["twice"]
    assert callable(function)
    assert kernel(function)(21) == 42
