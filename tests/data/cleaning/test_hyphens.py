"""Words divided at line ends are rejoined where the whole word is known; hyphens that mean something stay."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.cleaning.clean import clean
from data.cleaning.hyphens import SAMPLE, count_words, divided, rejoin, words_of, words_of_corpus
from data.cleaning.record_cleaner import CleanConfig, clean_record
from data.executor import EngineConfig, open_executor
from data.record_store import read_records
from tests.data.cleaning.cleaning import ingested, prose, record


def rejoined(text: str, elsewhere: str = "") -> str:
    return rejoin(text, words_of([text, elsewhere]), {})


@pytest.mark.parametrize(
    ("text", "elsewhere", "whole"),
    [
        ("A drill- ing head.", "The drilling head.", "A drilling head."),
        ("A drill-\ning head\nturns.", "drilling", "A drilling head\nturns."),
        ("Drill- ing heads, deter- mined", "drilling; Determined.", "Drilling heads, determined"),
        ("The three-dimen- sional part", "dimensional", "The three-dimensional part"),
        ("a heat- resistant seal", "heat-resistant seals", "a heat-resistant seal"),
        ("a heat- resistant seal", "heat-resistant heatresistant heatresistant", "a heatresistant seal"),
        ("a co- operating pin", "cooperating co-operating", "a co-operating pin"),
        ("an x- ray and a p- type layer", "X-ray, p-type", "an x-ray and a p-type layer"),
        ("LOAD- BEARING", "load-bearing", "LOAD-BEARING"),
        ("vor- gesehen", "vorgesehen", "vorgesehen"),
    ],
)
def test_a_divided_word_takes_the_form_that_stands_elsewhere(text: str, elsewhere: str, whole: str) -> None:
    assert rejoined(text, elsewhere) == whole


@pytest.mark.parametrize(
    ("text", "elsewhere"),
    [
        ("two- and three-way valves, pre- and post-", "twoand preand two-and"),
        ("in- or outlet, f- or, h- and l- and", "inor for hand land"),
        ("Ein- und Ausgang, Kopf- bzw. Kiefer", "Einund Kopfbzw"),
        ("mono- ou dioxyde", "monoou"),
        ("C₂- to C₄", "C₂to"),
        ("left-, right- and upper-most", "leftright"),
        ("Ziegler- Natta, Stickstoff-\nGemisch", "ZieglerNatta StickstoffGemisch"),
        ("CH₂- CH₂", "CH₂CH₂ CH₂-CH₂"),
        ("the pump - drilling - a drill -ing", "drilling"),
        ("10- fold, 5- ing, a- b", "fold ab a-b"),
        ("a drill- ing head", "drill ing drill-bit"),
        ("a drill- 10", "drill10"),
    ],
)
def test_a_hyphen_that_means_something_stays(text: str, elsewhere: str) -> None:
    assert rejoined(text, elsewhere) == text


@given(st.text("ab- \n,é泵2", max_size=60), st.text("ab- ", max_size=60))
def test_only_a_space_or_a_hyphen_is_ever_taken(text: str, elsewhere: str) -> None:
    after = rejoined(text, elsewhere)
    assert [c for c in after if c not in "- \n"] == [c for c in text if c not in "- \n"]
    assert after == text or next(divided(text), None)


def test_the_whole_document_is_looked_at_and_the_document_before_the_corpus() -> None:
    raw = record(claims=["A drilling head."], abstract="A drill- ing head, load- ing, cut- ting.")
    corpus = {"drill-ing": 99, "loading": 7, "cut-ting": 5, "cutting": 6}
    outcome = clean_record(CleanConfig(), raw, words=corpus)
    assert outcome.record is not None
    assert outcome.record["abstract"] == "A drilling head, loading, cutting."
    assert outcome.changed == {"hyphens": 6}
    assert clean_record(CleanConfig(hyphens=False), raw, words=corpus).record == raw


def test_the_words_of_the_corpus_are_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    """`drilling` stands in five descriptions of other shards, `loading` in four."""

    def text(n: int, more: str) -> str:
        return (
            prose("The pump is sealed by a ring of rubber, so that no water can leave it.") + f"\n{n}. {more}"
        )

    shards = [
        [record(n, description=text(n, "A drill- ing head and load- ing.")) for n in range(3)],
        [record(10 + n, description=text(n, "Drilling, gr- ound.")) for n in range(5)],
        [record(20 + n, description=text(n, "Loading, gr- ound.")) for n in range(4)],
    ]
    source = ingested(tmp_path / "ingest", *shards)
    results = []
    for workers in (1, 2):
        folder = tmp_path / f"clean-{workers}"
        folder.mkdir()
        with open_executor(EngineConfig(workers=workers)) as executor:
            counts = clean(CleanConfig(boilerplate_share=None), source, folder, executor)
        assert counts["changed"]["hyphens"] == {"records": 3, "characters": 6}
        results.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert results[0] == results[1]
    assert json.loads(results[0]["words.json"]) == {"drilling": 5}
    found = [r["description"] or "" for r in read_records(tmp_path / "clean-1") if r["id"] == "US-0-B2"]
    assert found[0].endswith("0. A drilling head and load- ing.")


def test_other_documents_of_a_shard_are_sampled(tmp_path: Path) -> None:
    plain = [record(n, description="A drilling head.") for n in range(SAMPLE + 9)]
    source = ingested(tmp_path / "ingest", [*plain, record(999, description="A drill- ing head.")], plain)
    with_one, without = (count_words(source / f"shard-0000{number}.parquet") for number in range(2))
    assert with_one.words["drilling"] == SAMPLE
    assert not without.words
    assert words_of_corpus([with_one, without]) == {"drilling": SAMPLE}
