"""What a user of the made-up corpus relies on: the same bytes everywhere, well-formed, bilingual, varied."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from core.errors import UserError
from data.record import SCHEMA, Record
from data.synthetic.inflection import article, gerund, plural, third_person
from data.synthetic.lexicon_sampler import Numbers, load
from data.synthetic.patents import Invention, invent, synthesize

INVENTIONS = 300
KINDS = ["解决问题", "技术手段", "实施效果"]
HEADINGS = [
    ["技术领域", "背景技术", "发明内容", "附图说明", "具体实施方式"],
    ["TECHNICAL FIELD", "BACKGROUND", "SUMMARY", "BRIEF DESCRIPTION OF DRAWINGS", "DETAILED DESCRIPTION"],
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    synthesize(folder, INVENTIONS, seed=7)
    return folder


@pytest.fixture(scope="module")
def records(corpus: Path) -> list[Record]:
    return [json.loads(line) for line in (corpus / "records.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def truths(corpus: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (corpus / "truth.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def many() -> list[Invention]:
    return [invent(Random(f"many:{i}")) for i in range(5000)]


def test_the_same_seed_gives_the_same_bytes_on_every_machine(tmp_path: Path) -> None:
    counts = synthesize(tmp_path, 50, seed=1)
    digest = hashlib.sha256(
        (tmp_path / "records.jsonl").read_bytes() + (tmp_path / "truth.jsonl").read_bytes()
    )
    assert digest.hexdigest() == "87d41bc8e2687f08df7014b176c0f564093f25ee6f5ca7094162ff169917a3a2"
    assert counts == {"inventions": 50, "records": 100, "characters": counts["characters"]}


def test_an_invention_does_not_depend_on_how_many_follow(corpus: Path, tmp_path: Path) -> None:
    synthesize(tmp_path, 20, seed=7)
    for name in ("records.jsonl", "truth.jsonl"):
        assert (corpus / name).read_bytes().startswith((tmp_path / name).read_bytes())


def test_another_seed_gives_other_inventions(corpus: Path, tmp_path: Path) -> None:
    synthesize(tmp_path, 20, seed=8)
    lines = (tmp_path / "truth.jsonl").read_text("utf-8").splitlines()
    assert not set(lines) & set((corpus / "truth.jsonl").read_text("utf-8").splitlines())


@pytest.mark.parametrize("inventions", [0, -1, 10_000_001])
def test_an_impossible_number_of_inventions_is_refused(tmp_path: Path, inventions: int) -> None:
    with pytest.raises(UserError, match=str(inventions)):
        synthesize(tmp_path, inventions, seed=1)


def test_counts_are_those_of_the_files(tmp_path: Path) -> None:
    counts = synthesize(tmp_path, 10, seed=3)
    lines = (tmp_path / "records.jsonl").read_text("utf-8").splitlines()
    texts = {"zh": 0, "en": 0}
    for record in map(json.loads, lines):
        parts = [record["title"], record["abstract"], *record["claims"], record["description"]]
        texts[record["language"]] += sum(map(len, parts))
    assert counts == {"inventions": 10, "records": len(lines), "characters": texts}


def test_records_are_whole_patent_records(records: list[Record]) -> None:
    assert len(records) == 2 * INVENTIONS
    pa.Table.from_pylist([dict(record) for record in records], schema=SCHEMA).validate(full=True)
    assert len({(record["id"], record["language"]) for record in records}) == len(records)
    for record in records:
        assert record.keys() == Record.__annotations__.keys()
        assert re.fullmatch(rf"CN-1\d{{8}}-{record['kind']}", record["id"])
        assert record["kind"] in {"A", "B"}
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"] or "")
        assert all(re.fullmatch(r"[A-H]\d\d[A-Z] \d+/\d+", symbol) for symbol in record["ipc"] or [""])
        assert all(record[name] for name in ("title", "abstract", "claims", "description"))


def test_the_two_languages_of_an_invention_belong_together(
    records: list[Record], truths: list[dict[str, Any]]
) -> None:
    for zh, en, truth in zip(records[::2], records[1::2], truths, strict=True):
        assert (zh["language"], en["language"]) == ("zh", "en")
        for name in ("id", "application_id", "date", "ipc", "source"):
            assert zh[name] == en[name]
        assert truth["application_id"] == zh["application_id"]
        assert truth["ipc"] == zh["ipc"]
        assert truth["title"] == {"zh": zh["title"], "en": en["title"]}
        assert [claim["zh"] for claim in truth["claims"]] == zh["claims"]
        assert [claim["en"] for claim in truth["claims"]] == en["claims"]


def test_key_information_stands_in_the_abstract(records: list[Record], truths: list[dict[str, Any]]) -> None:
    seen: Counter[str] = Counter()
    for zh, en, truth in zip(records[::2], records[1::2], truths, strict=True):
        for record, key in ((zh, "key_information"), (en, "key_information_en")):
            assert list(truth[key]) == KINDS
            for kind, phrases in truth[key].items():
                seen[kind] += bool(phrases)
                assert all(phrase in (record["abstract"] or "") for phrase in phrases)
                assert len(phrases) == len(truth["key_information"][kind])
    assert all(seen[kind] > INVENTIONS for kind in KINDS)
    assert seen["解决问题"] < 2 * INVENTIONS
    assert seen["技术手段"] == 2 * INVENTIONS


def test_dependent_claims_name_an_earlier_claim(truths: list[dict[str, Any]]) -> None:
    independent = 0
    for truth in truths:
        claims = truth["claims"]
        assert 4 <= len(claims) <= 10
        assert claims[0]["depends_on"] is None
        for number, claim in enumerate(claims, start=1):
            on = claim["depends_on"]
            if on is None:
                independent += 1
                assert claim["zh"].startswith("一种")
                assert claim["en"].startswith(("A ", "An "))
            else:
                assert 1 <= on < number
                assert re.match(rf"[根据如]+权利要求{on}所述的", claim["zh"])
                assert re.match(rf"The [^,]*\bclaim {on},", claim["en"])
    assert INVENTIONS * 1.2 < independent <= INVENTIONS * 2


def test_numbers_are_the_same_in_both_languages(many: list[Invention]) -> None:
    for invention in many[:1000]:
        pairs = [invention["title"], invention["abstract"], invention["description"]]
        pairs += [(claim["zh"], claim["en"]) for claim in invention["claims"]]
        for zh, en in pairs:
            assert Counter(_numbers(zh)) == Counter(_numbers(en))


def test_the_description_has_its_five_sections(many: list[Invention]) -> None:
    for invention in many[:500]:
        for text, headings in zip(invention["description"], HEADINGS, strict=True):
            lines = text.split("\n")
            assert [line for line in lines if line in headings] == headings
            assert all(line.endswith(("。", ".")) for line in lines if line not in headings)


def test_reference_numerals_are_consistent(many: list[Invention]) -> None:
    """One numeral is one part, and every part of the list of numerals is used."""
    for invention in many[:500]:
        listed = dict(
            re.findall(r"(\d+)、([^；。]+)[；。]", _section(invention["description"][0], "附图说明"))
        )
        used = _section(invention["description"][0], "具体实施方式")
        for number, part in listed.items():
            assert f"{part}（{number}）" in used
        assert set(re.findall(r"（(\d+)）", used)) == set(listed)


def test_terms_recur_through_a_document(many: list[Invention]) -> None:
    """What an n-gram cannot know and a language model can: the same parts come back in every section."""
    for invention in many[:500]:
        name = invention["claims"][0]["zh"].split("，")[0].removeprefix("一种")
        assert name in invention["title"][0]
        assert name in invention["abstract"][0]
        assert name in invention["description"][0]
        document = "".join(_texts(invention, 0))
        drawings = _section(invention["description"][0], "附图说明")
        for part in re.findall(r"\d、([^；。]+)[；。]", drawings):
            assert document.count(part) >= 3, part


@pytest.mark.parametrize("seed", range(100))
def test_a_range_holds_its_narrower_range_and_its_value(seed: int) -> None:
    slots: dict[str, tuple[str, str]] = {}
    units = load("lexicon.yaml")["units"]
    Numbers(Random(seed), units).quantity(slots, "q", ["宽度", "width", "mm", 0.5, 3, 0.1])
    low, high = map(float, _numbers(slots["q_range"][1]))
    inner_low, inner_high = map(float, _numbers(slots["q_inner"][1]))
    value = float(_numbers(slots["q_value"][1])[0])
    assert 0.5 <= low < inner_low <= value <= inner_high < high <= 3
    assert inner_low < inner_high
    assert float(_numbers(slots["q_high"][1])[0]) == high


def test_text_is_clean(many: list[Invention]) -> None:
    for invention in many[:1000]:
        for text in _texts(invention, 0):
            assert not re.search(r"[{}]|  |[，。；、：]{2}|[,;:!?]|\. |None", text), text
            han = sum("一" <= c <= "鿿" or c in "，。；、：（）\n" for c in text)
            assert han > 0.6 * len(text)
        for text in _texts(invention, 1):
            assert not re.search(r"[{}]|  | [,.;:)]|[,.;:]{2}|\bNone\b|\( ", text), text
            assert re.fullmatch(r"[\x20-\x7e\n°μ²·]+", text), text
            assert not re.search(
                r"\ban? (a|an|the)\b|\bthe the\b|\ba [aeio](?!ne)|\ban [bcdfgjkpqtvwyz]", text
            ), text
            assert all(line[:1].isupper() or line[:1].isdigit() for line in text.split("\n")), text


def test_inventions_differ(many: list[Invention]) -> None:
    firsts = {(invention["title"], invention["claims"][0]["zh"]) for invention in many}
    assert len(firsts) == len(many)
    titles = {invention["title"][0] for invention in many}
    assert 1 - len(titles) / len(many) < 0.05
    fields = Counter(invention["ipc"][0][:4] for invention in many)
    assert len(fields) >= 8


def test_each_chinese_title_has_one_english_title(many: list[Invention]) -> None:
    english: dict[str, str] = {}
    for zh, en in (invention["title"] for invention in many):
        assert english.setdefault(zh, en) == en
        assert zh.startswith("一种")
        assert en[0].isupper() or en[0].isdigit()


def test_names_of_parts_are_unique_in_their_field() -> None:
    for name, field in load("lexicon.yaml")["fields"].items():
        rows = [row for topic in field["topics"] for row in topic["keys"]]
        for part in ("bodies", "drives", "parts", "sensors", "bases", "aids"):
            rows += field.get(part, [])
        for column in (0, 1):
            twice = [text for text, n in Counter(row[column] for row in rows).items() if n > 1]
            assert not twice, (name, twice)


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("optical filter", "an optical filter"),
        ("user terminal", "a user terminal"),
        ("unmanned aerial vehicle", "an unmanned aerial vehicle"),
        ("one-hand-operated device", "a one-hand-operated device"),
        ("LED light source", "an LED light source"),
        ("DC contactor", "a DC contactor"),
        ("Hall sensor", "a Hall sensor"),
    ],
)
def test_article(noun: str, expected: str) -> None:
    assert article(noun) == expected


@pytest.mark.parametrize(
    ("phrase", "third", "ing"),
    [
        ("improve the accuracy", "improves the accuracy", "improving the accuracy"),
        ("push the core", "pushes the core", "pushing the core"),
        ("carry away heat", "carries away heat", "carrying away heat"),
        ("delay aging", "delays aging", "delaying aging"),
        ("emit light", "emits light", "emitting light"),
    ],
)
def test_verb_forms(phrase: str, third: str, ing: str) -> None:
    assert (third_person(phrase), gerund(phrase)) == (third, ing)


@pytest.mark.parametrize(("noun", "expected"), [("alloy", "alloys"), ("storage box", "storage boxes")])
def test_plural(noun: str, expected: str) -> None:
    assert plural(noun) == expected


def _texts(invention: Invention, i: int) -> Iterator[str]:
    yield invention["title"][i]
    yield invention["abstract"][i]
    yield from (claim["en"] if i else claim["zh"] for claim in invention["claims"])
    yield invention["description"][i]


def _numbers(text: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)?", text)


def _section(description: str, heading: str) -> str:
    after = description.split(f"{heading}\n", 1)[1]
    return re.split("|".join(f"\n{other}\n" for other in HEADINGS[0]), after)[0]
