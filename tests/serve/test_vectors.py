"""Vectors: an embedding that crosses languages, an endpoint's, and how two rankings become one."""

import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from core.errors import UserError
from data.record import Record, invention
from data.record_store import read_records
from serve.retrieval.embedding import Hashed, train
from serve.retrieval.index import build
from serve.retrieval.passages import passages
from serve.retrieval.search import Filter, Index
from tests.conftest import run
from tests.data.records import record, write_shards
from tests.serve.engine import engine
from tests.serve.test_index import made


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bilingual corpus, its embedding, and indexes with and without vectors."""
    folder = tmp_path_factory.mktemp("vectors")
    corpus, embedding = folder / "corpus", folder / "embedding"
    steps = [
        ("data", "run", "--until", "dedup", f"output_dir={corpus}", "synthetic.inventions=150"),
        ("serve", "embed", "--corpus", corpus, "--output", embedding, "--epochs", "20"),
        ("serve", "index", "--corpus", corpus, "--output", folder / "terms"),
        ("serve", "index", "--corpus", corpus, "--output", folder / "both", "--embedding", embedding),
    ]
    for step in steps:
        done = run(*step)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def records(place: Path) -> list[Record]:
    return list(read_records(place / "corpus" / "dedup"))


def test_an_english_text_finds_its_chinese_publication(place: Path, records: list[Record]) -> None:
    asked = [each for each in records if each["language"] == "en"][:60]
    found = {}
    for name in ("terms", "both"):
        index, chinese = Index(place / name), Filter(languages=("zh",))
        hits = [
            {hit.invention for hit in index.search(each["abstract"] or "", 10, chinese)} for each in asked
        ]
        found[name] = sum(invention(each) in own for each, own in zip(asked, hits, strict=True))
    assert found["both"] >= 48 > 3 * found["terms"], found


def test_both_rankings_are_joined_by_reciprocal_rank(place: Path, records: list[Record]) -> None:
    """Against brute force over all passages."""
    index, terms = Index(place / "both"), Index(place / "terms")
    encoder = Hashed.open(place / "embedding")
    texts = [
        (invention(each), each["language"], passage.text) for each in records for passage in passages(each)
    ]
    vectors = encoder.encode([text for _, _, text in texts]).astype(np.float16).astype(np.float32)
    for question, wanted in (("变频压缩机", Filter()), ("heat exchanger", Filter(languages=("zh",)))):
        cosines = vectors @ encoder.encode([question])[0]
        ranked: list[str] = []
        for number in np.argsort(-cosines, kind="stable"):
            own, language, _ = texts[number]
            if own not in ranked and (not wanted.languages or language in wanted.languages):
                ranked.append(own)
        scores: dict[str, float] = defaultdict(float)
        for ranking in (ranked[:50], [hit.invention for hit in terms.search(question, 50, wanted)]):
            for rank, own in enumerate(ranking, 1):
                scores[own] += 1 / (60 + rank)
        hits = index.search(question, 10, wanted)
        best = sorted(scores.values(), reverse=True)[:10]
        np.testing.assert_allclose([hit.score for hit in hits], best, rtol=1e-6)
        assert all(scores[hit.invention] == pytest.approx(hit.score) for hit in hits)


def test_an_index_that_grew_has_the_same_vectors(place: Path, records: list[Record], tmp_path: Path) -> None:
    for name, part in (("a", records[:100]), ("b", records[100:])):
        write_shards([part], tmp_path / name)
    build([tmp_path / "a"], tmp_path / "first", embedding=place / "embedding")
    changed = {**records[3], "title": "改进的旋转木马"}
    write_shards([[changed]], tmp_path / "c")  # type: ignore[list-item]
    build([tmp_path / "b"], tmp_path / "second", tmp_path / "first")
    for question in ("变频压缩机", "a fan and a heat exchanger"):
        grown, once = (Index(folder).search(question, 20) for folder in (tmp_path / "second", place / "both"))
        assert [(hit.invention, hit.score) for hit in grown] == [(hit.invention, hit.score) for hit in once]
    build([tmp_path / "c"], tmp_path / "third", tmp_path / "second")
    hits = Index(tmp_path / "third").search("旋转木马", 10)
    assert any("改进的旋转木马" in passage["text"] for hit in hits for passage in hit.passages)


def test_the_same_families_give_the_same_bytes(place: Path, tmp_path: Path) -> None:
    folder = place / "corpus" / "dedup"
    for name in ("a", "b"):
        train([folder], tmp_path / name, epochs=1)
    both = [(tmp_path / name / "embedding.safetensors").read_bytes() for name in ("a", "b")]
    assert both[0] == both[1]


def test_what_does_not_fit_is_refused(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards([[record(1), record(2), record(1, "zh")]], tmp_path / "few")
    with pytest.raises(UserError, match="2 pairs of texts of one invention in two languages; 100"):
        train([tmp_path / "few"], tmp_path / "embedding")
    with pytest.raises(UserError, match="has no vectors"):
        build([tmp_path / "few"], tmp_path / "index", place / "terms", embedding=place / "embedding")
    train([place / "corpus" / "dedup"], tmp_path / "other", epochs=1)
    with pytest.raises(UserError, match="the older index has vectors of hashed"):
        build([tmp_path / "few"], tmp_path / "index", place / "both", embedding=tmp_path / "other")
    build([tmp_path / "few"], tmp_path / "index", place / "both", embedding=place / "embedding")
    shutil.rmtree(tmp_path / "index")
    with pytest.raises(UserError, match="is no embedding"):
        build([tmp_path / "few"], tmp_path / "index", embedding=place / "terms")
    shutil.copytree(place / "both", tmp_path / "cut")
    vectors = tmp_path / "cut" / "vectors.f16"
    for size, message in ((256 * 10, "vectors are missing"), (1001, "is damaged"), (0, "is damaged")):
        vectors.write_bytes(vectors.read_bytes()[:size])
        with pytest.raises(UserError, match=message):
            Index(tmp_path / "cut")
    vectors.unlink()
    with pytest.raises(UserError, match="is damaged"):
        Index(tmp_path / "cut")
    monkeypatch.setattr("serve.retrieval.terms.RULE", "another")
    with pytest.raises(UserError, match="made with other terms"):
        Hashed.open(place / "embedding")


def test_an_endpoints_vectors(tmp_path: Path) -> None:
    records = [made(number, claims=["qqq zzz"] if number == 7 else None) for number in range(150)]
    write_shards([records[:100]], tmp_path / "a")
    write_shards([records[100:]], tmp_path / "b")
    write_shards(
        [[record(n, language) for n in range(60) for language in ("en", "zh")]], tmp_path / "families"
    )
    with engine() as fake:
        given = ("--embeddings", fake.url, "--embedding-model", "letters")
        grow = ("--corpus", tmp_path / "b", "--extends", tmp_path / "first", "--output")
        done = run("serve", "index", "--corpus", tmp_path / "a", "--output", tmp_path / "first", *given)
        assert done.returncode == 0, done.stderr
        assert fake.asked[-1]["model"] == "letters"
        done = run("serve", "index", *grow, tmp_path / "second")
        assert done.returncode == 0, done.stderr
        (best, *_) = Index(tmp_path / "second").search("zqzq qzqz", 3)
        assert best.id == records[7]["id"], "found by its letters alone"
        done = run("serve", "index", *grow, tmp_path / "x", *given[:3], "other")
        assert (done.returncode, "the older index has vectors of letters" in done.stderr) == (2, True)
        train([tmp_path / "families"], tmp_path / "embedding", epochs=1)
        done = run("serve", "index", *grow, tmp_path / "x", "--embedding", tmp_path / "embedding")
        assert (done.returncode, "the older index has vectors of letters" in done.stderr) == (2, True)
        fake.fault = lambda _: "cut"
        with pytest.raises(UserError, match="texts gave vectors of shape"):
            Index(tmp_path / "second").search("zqzq", 3)
    done = run("serve", "index", *grow, tmp_path / "x", *given[:2])
    assert (done.returncode, "go together" in done.stderr) == (2, True)
    wrong = ("--embeddings", "localhost", "--embedding-model", "letters")
    done = run("serve", "index", *grow, tmp_path / "x", *wrong)
    assert (done.returncode, "--embeddings: must begin with http" in done.stderr) == (2, True)
    assert not (tmp_path / "x").exists()
