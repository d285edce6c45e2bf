"""Retrieval over real statutes: articles by their numbers, in both kinds of Chinese characters, and across
languages."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from data.language import convert_chinese
from data.record import Record
from serve.retrieval.embedding import train
from serve.retrieval.index import build
from serve.retrieval.search import Filter, Index
from serve.service.citations import check
from tests.data.records import record, write_shards

pytestmark = pytest.mark.real
STATUTES = "translation/tw_ip_law_zh_en.jsonl"


@pytest.fixture(scope="module")
def rows(real: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (real / STATUTES).read_text("utf-8").splitlines()]


def test_every_article_is_known_and_found_in_both_kinds_of_characters(
    rows: list[dict[str, str]], tmp_path: Path
) -> None:
    laws = defaultdict(list)
    for row in rows:
        number, _, sub = row["article"].partition("-")
        article = f"第 {number} 條" + (f"之 {sub}" if sub else "")
        laws[row["law"]].append(f"{article}　{' '.join(row['zh'].split())}")
    nothing: dict[str, Any] = {"abstract": None, "claims": None, "ipc": None, "language": "zh-Hant"}
    records = [
        record(
            number,
            id=f"law-{number}",
            application_id=None,
            title=law,
            description="\n".join(lines),
            **nothing,
        )
        for number, (law, lines) in enumerate(laws.items())
    ]
    write_shards([records], tmp_path / "records")
    build([tmp_path / "records"], tmp_path / "index")
    index = Index(tmp_path / "index")
    found = 0
    for row in rows:
        assert index.has_law(row["law"], f"第{row['article'].replace('-', '條之')}條"), row["article"]
        assert index.has_law(convert_chinese(row["law"], "simplified"), row["article"])
        assert not index.has_law(row["law"], "第九百九十九條")
    for row in rows[::10]:
        (best, *_) = index.search(convert_chinese(row["zh"], "simplified"), 1)
        found += best.title == row["law"] and any(
            row["zh"][:20] in "".join(each["text"].split()) for each in best.passages
        )
    assert found >= 95
    law = rows[0]["law"]
    answer = f"依《{law}》第一條及《{law}》第九百條，見[1]。"
    assert [each.problem for each in check(answer, 1, index)] == [None, "no-such-article", None]


def test_an_english_article_finds_the_chinese_one(rows: list[dict[str, str]], tmp_path: Path) -> None:
    """By an embedding that was trained on these pairs, as a group would train it on its own families."""
    records: dict[str, list[Record]] = {"zh": [], "en": []}
    for number, row in enumerate(rows):
        for language, own in records.items():
            only: dict[str, Any] = {
                "title": None,
                "claims": None,
                "description": None,
                "ipc": None,
                "abstract": row[language],
            }
            own.append(record(number, id=f"{language}-{number}", language=language, office=None, **only))
    write_shards([*records.values()], tmp_path / "both")
    write_shards([records["zh"]], tmp_path / "zh")
    train([tmp_path / "both"], tmp_path / "embedding")
    build([tmp_path / "zh"], tmp_path / "terms")
    build([tmp_path / "zh"], tmp_path / "vectors", embedding=tmp_path / "embedding")
    recall = {}
    for name in ("terms", "vectors"):
        index = Index(tmp_path / name)
        hits = [index.search(row["en"], 10, Filter(languages=("zh",))) for row in rows[::5]]
        recall[name] = sum(
            f"X-{5 * n}" in {hit.invention for hit in each} for n, each in enumerate(hits)
        ) / len(hits)
    print(recall)
    assert recall["vectors"] > 0.95
    assert recall["terms"] < 0.2
