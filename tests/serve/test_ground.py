"""Chats with sources: an answer cites only what has it, held-out inventions stay out of training, and a model
is trained on the prompt that the assistant will give it."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import UserError
from core.provenance import manifest
from data.chat.grounded import RULES, cited_sources
from data.chat.messages import merged
from data.packing.train_val_split import SplitConfig, link_families, split_of
from data.record import Record
from serve.ground import Settings, ground
from serve.record_questions import KINDS, LANGUAGES, MOST_PASSAGES, questions_of, wordings
from serve.retrieval.index import build
from serve.retrieval.search import Index
from serve.service.assistant import PROMPT_BYTES, Assistant
from tests.conftest import run
from tests.data.chat.chats import prepared, write_tokenizer
from tests.data.chat.test_prepare import texts
from tests.data.records import record, write_shards

TEXTS: dict[str, dict[str, Any]] = {
    "en": {
        "title": "Pump with a {0} and a {1}",
        "abstract": "A pump moves water past a {0}. It reduces noise of the {1}.",
        "claims": ["A pump, comprising: a {0}, and a {1} in a housing.", "The pump of claim 1."],
        "description": "Background\nThe object of the invention is to cool the {0} of number {2}.\n"
        "Detailed description\nThe {0} 12 is held by the {1} in way {2}.",
    },
    "zh": {
        "title": "一种带{0}和{1}的泵",
        "abstract": "一种泵，其{0}输送水。从而降低了{1}的噪声。",
        "claims": ["一种泵，其特征在于，包括{0}以及{1}和壳体。", "根据权利要求1所述的泵。"],
        "description": "背景技术\n本发明的目的在于冷却第{2}个{0}。\n具体实施方式\n{0}12由{1}以方式{2}固定。",
    },
    "ko": {
        "title": "{0}와 {1}를 갖는 펌프",
        "abstract": "물을 옮기는 {0} 펌프이다. {1}의 소음을 줄이는 효과가 있다.",
        "claims": ["{0}와 {1}를 포함하는 펌프.", "제1항에 있어서, 펌프."],
        "description": "배경기술\n본 발명의 목적은 {2}번 {0}을 식히는 것이다.\n"
        "발명을 실시하기 위한 구체적인 내용\n{0}(12)은 {1}에 {2}로 고정된다.",
    },
    "ja": {
        "title": "{0}と{1}を備えるポンプ",
        "abstract": "水を運ぶ{0}のポンプである。{1}の騒音を低減する。",
        "claims": ["{0}と{1}とを備えるポンプ。", "請求項1に記載のポンプ。"],
        "description": "背景技術\n本発明の目的は、{2}番の{0}を冷却することにある。\n"
        "発明を実施するための形態\n{0}１２は{1}に{2}で固定される。",
    },
}
WORDS = {
    "en": ["rotor", "valve", "seal", "shaft", "impeller", "gasket", "bearing", "spring", "nozzle", "piston"],
    "zh": ["转子", "阀门", "密封圈", "转轴", "叶轮", "垫片", "轴承", "弹簧", "喷嘴", "活塞"],
    "ko": ["로터", "밸브", "씰", "샤프트", "임펠러", "개스킷", "베어링", "스프링", "노즐", "피스톤"],
    "ja": ["回転子", "弁体", "密封環", "回転軸", "羽根車", "座金板", "軸受部", "発条体", "噴射口", "活塞体"],
}


def made(number: int, language: str) -> Record:
    """A pump with two parts; every fourth has the title of another."""
    draw = random.Random(number // 2 if number % 8 == 1 else number)
    words = [*draw.sample(WORDS[language], 2), number]
    fields: dict[str, Any] = {
        name: [text.format(*words) for text in value] if isinstance(value, list) else value.format(*words)
        for name, value in TEXTS[language].items()
    }
    office = {"en": "US", "zh": "CN", "ko": "KR", "ja": "JP"}[language]
    more = {"id": f"{office}-{10000 + number}-A", "office": office, "language": language}
    return record(number, **(more | fields))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 120 records, of which some are one invention in two languages, and its index."""
    folder = tmp_path_factory.mktemp("ground")
    records = [made(number, LANGUAGES[number % 4]) for number in range(100)]
    records += [{**made(100 + n, LANGUAGES[n % 4]), "application_id": f"X-{n + 1}"} for n in range(20)]
    write_shards([records[:70], records[70:]], folder / "records")
    build([folder / "records"], folder / "index")
    return folder


def make(place: Path, output: Path, **given: Any) -> dict[str, list[dict[str, Any]]]:
    """The chats of both files."""
    ground([place / "records"], place / "index", output, Settings(**given), force=True)
    return {
        side: [json.loads(line) for line in (output / f"{side}.jsonl").read_text("utf-8").splitlines()]
        for side in ("train", "validation")
    }


def sources(material: str, language: str) -> list[tuple[str, str]]:
    """Name and text of the sources in a prompt."""
    rules, *shown = re.split(r"\n\n\[\d+\] ", material)
    assert rules == RULES[language]
    named = (each.partition("\n") for each in shown)
    return [(name, re.sub(r"^> ", "", text, flags=re.MULTILINE)) for name, _, text in named]


@given(
    unanswerable=st.floats(0, 0.9), n=st.integers(2, 7), number=st.integers(1, 300), seed=st.integers(0, 9)
)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_cited_source_is_given_and_has_the_answer(
    place: Path, tmp_path: Path, unanswerable: float, n: int, number: int, seed: int
) -> None:
    asked = {"unanswerable": unanswerable, "sources": n, "number": number, "seed": seed}
    chats = make(place, tmp_path / "g", **asked, validation_share=0.2)
    for side in chats.values():
        assert len(side) <= number
        without = sum(chat["answerable"] == "no" for chat in side)
        assert without == round(unanswerable * len(side))
        for chat in side:
            shown = sources(chat["input"], chat["language"])
            cited = cited_sources(chat["output"])
            assert 1 <= len(shown) == chat["sources"] <= n
            assert cited == chat["relevant_sources"]
            assert all(1 <= each <= len(shown) for each in cited)
            assert len({text for _, text in shown}) == len(shown)
            assert sum(len(text.encode()) for _, text in shown) <= PROMPT_BYTES
            own = chat["publication"]
            having = [i for i, (_, text) in enumerate(shown, 1) if chat["reference"] in text]
            if chat["answerable"] == "yes":
                assert 1 <= len(cited) <= MOST_PASSAGES
                assert having == cited == [i for i, (name, _) in enumerate(shown, 1) if f"{own}," in name]
                assert chat["reference"] in chat["output"]
            else:
                assert cited == having == []
                assert chat["output"] in wordings()["refusals"][chat["language"]]
                assert not any(f"{own}," in name for name, _ in shown)


def test_all_kinds_are_asked_in_all_languages_and_the_right_source_stands_anywhere(
    place: Path, tmp_path: Path
) -> None:
    chats = make(place, tmp_path / "g", number=500, unanswerable=0.0, validation_share=0.0)["train"]
    assert {(chat["task"], chat["language"]) for chat in chats} == {
        (f"grounded-{kind}", language) for kind in KINDS for language in LANGUAGES
    }
    places = [chat["relevant_sources"][0] for chat in chats if chat["sources"] == 5]
    assert set(places) == {1, 2, 3, 4, 5}
    few = make(place, tmp_path / "g", number=20, unanswerable=0.0, validation_share=0.0)["train"]
    assert sorted(chat["task"] for chat in few) == sorted(f"grounded-{kind}" for kind in KINDS * 4)


def test_held_out_inventions_are_those_of_data_build_and_no_source_in_training(
    place: Path, tmp_path: Path
) -> None:
    chats = make(place, tmp_path / "g", number=500, validation_share=0.3, seed=3)
    shards = sorted((place / "records").glob("*.parquet"))
    config = SplitConfig(validation_share=0.3, seed=3)
    from data.record_store import read_records

    families = link_families([shards], None)
    side = {r["id"]: split_of(r, config, families) for r in read_records(place / "records")}
    assert set(side.values()) == {"train", "validation"}
    for name, each in chats.items():
        assert each
        assert {side[chat["publication"]] for chat in each} == {name}
    for chat in chats["train"]:
        named = {name.partition(",")[0] for name, _ in sources(chat["input"], chat["language"])}
        assert {side[publication] for publication in named} == {"train"}


def test_one_seed_gives_the_same_bytes_and_another_other_chats(place: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make(place, tmp_path / name, number=60, seed=seed, validation_share=0.2)
    for file in ("train.jsonl", "validation.jsonl"):
        one, same, other = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert one == same != other
    counts = manifest.read(tmp_path / "a")["counts"]
    assert (
        counts["found"]
        == counts["searched"]
        == sum(map(sum, (counts[s].values() for s in ("train", "validation"))))
    )


@pytest.mark.parametrize("template", ["alpaca", "chatml"])
def test_training_reads_them_unchanged_with_a_slot_for_sources_and_without(
    place: Path, tmp_path: Path, template: str
) -> None:
    chats = make(place, tmp_path / "g", number=30)["train"]
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    source = [{"path": str(tmp_path / "g" / "train.jsonl")}]
    given: dict[str, Any] = {"template": template, "validation_share": 0.0, "max_tokens": 20_000}
    done = prepared(tmp_path / "chats", tokenizer, source, **given)
    found = texts(done)
    assert len(found) == len(chats) == 30
    for chat in chats:
        whole = [text for text in found if chat["instruction"] in text and chat["output"] in text]
        assert any(chat["input"] in text for text in whole)
        if template == "chatml":
            assert any(f"{chat['instruction']}\n{chat['input']}<|im_end|>" in text for text in whole)


def test_the_assistant_gives_the_sources_in_the_form_of_training(place: Path) -> None:
    index = Index(place / "index")
    question = "How does the rotor work?"
    slot = Assistant(index, input_slot=True).prepare([{"role": "user", "content": question}])
    plain = Assistant(index).prepare([{"role": "user", "content": question}])
    assert slot.prompt[0]["content"] == question
    assert sources(slot.prompt[0]["input"], "en") == [(s["name"], s["text"]) for s in slot.sources]
    assert plain.prompt == [merged(slot.prompt[0])]


def test_a_question_has_its_answer_in_its_passages_and_no_two_have_the_same() -> None:
    for language in LANGUAGES:
        found = list(questions_of(made(4, language)))
        assert [question.kind for question in found] == list(KINDS)
        assert len({question.answer for question in found}) == len(found)
        for question in found:
            assert question.passages
            assert all(question.answer in passage.text for passage in question.passages)
    assert not list(questions_of({**made(4, "en"), "title": None}))
    assert not list(questions_of({**made(4, "en"), "language": "de"}))
    bare: Any = {**made(4, "en"), "claims": None, "description": None, "abstract": "Only a heading"}
    assert not list(questions_of(bare))


def test_brackets_in_a_document_are_never_read_as_citations() -> None:
    description = (
        "Background\n[0005] The object of the invention is to cool the rotor.\n"
        "Detailed description\nThe rotor 12 is held as in [3].\n"
        "The seal 14 is [0006] held.\n【0007】 The shaft 13 is held by a seal."
    )
    claims = ["A pump, comprising: a rotor [12] and a seal."]
    found = {
        question.kind: question.answer
        for question in questions_of({**made(4, "en"), "description": description, "claims": claims})
    }
    assert found["problem"] == "The object of the invention is to cool the rotor."
    assert found["works"] == "The shaft 13 is held by a seal."
    assert "parts" not in found


def test_every_kind_has_several_wordings_in_every_language() -> None:
    said = wordings()
    assert said["questions"].keys() == set(KINDS)
    for part in (*said["questions"].values(), said["answers"], said["refusals"]):
        assert part.keys() == set(LANGUAGES)
        assert all(len(set(each)) >= 3 for each in part.values())
    for kind, by_language in said["questions"].items():
        for each in by_language.values():
            slots = {"{title}"} | ({"{part}"} if kind == "works" else set())
            assert all(set(re.findall(r"\{\w+\}", wording)) == slots for wording in each)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unanswerable": 1.0}, "--unanswerable 1.0: a share"),
        ({"unanswerable": -0.1}, "--unanswerable -0.1: a share"),
        ({"validation_share": 1.5}, "--validation-share 1.5: a share"),
        ({"unanswerable": float("nan")}, "--unanswerable nan: a share"),
        ({"number": 0}, "--number 0: at least 1"),
        ({"sources": 1}, "--sources 1: at least 2"),
        ({"seed": -1}, "--seed -1: at least 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        Settings(**settings)


def test_what_cannot_be_grounded_is_refused_and_leaves_nothing(place: Path, tmp_path: Path) -> None:
    alien: list[Any] = [
        {**made(n, "en"), "title": f"Xylophone {n}", "id": f"EP-{n}000-A", "application_id": f"Y-{n}"}
        for n in range(500, 510)
    ]
    write_shards([alien], tmp_path / "alien")
    with pytest.raises(UserError, match="finds its own invention there"):
        ground([tmp_path / "alien"], place / "index", tmp_path / "g", Settings())
    write_shards([[{**made(1, "en"), "title": None}]], tmp_path / "bare")
    with pytest.raises(UserError, match="no question can be made of 1 records"):
        ground([tmp_path / "bare"], place / "index", tmp_path / "g", Settings())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no corpus"):
        ground([tmp_path / "empty"], place / "index", tmp_path / "g", Settings())
    assert not (tmp_path / "g").exists()
    asked: list[str | Path] = [
        "--corpus",
        place / "records",
        "--index",
        place / "index",
        "--output",
        tmp_path / "g",
    ]
    done = run("serve", "ground", *asked, "--number", "10")
    assert done.returncode == 0, done.stderr
    assert "10 chats and 0 of held-out inventions; the index found the right one for 10 of 10" in done.stdout
    again = run("serve", "ground", *asked)
    assert again.returncode == 2
    assert "--force" in again.stderr
