"""A packed corpus: every record a document, inventions whole on one side, counts that add up."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from transformers import AutoTokenizer

from core.errors import UserError
from data.engine import EngineConfig, open_executor
from data.indexed import Documents
from data.pack import PackConfig, Part, batches, layout, pack, split_of
from data.record import SCHEMA, Record
from data.tokenizer import TokenizerConfig, prepare_tokenizer, record_texts


def record(number: int, language: str = "en", **fields: Any) -> Record:
    """The record of an invention in one language."""
    texts = {
        "en": (
            "Pump {}",
            "A pump {} moves water.",
            ["A pump {}.", "The pump of claim 1."],
            "It pumps {} l.\nWell.",
        ),
        "zh": (
            "水泵{}",
            "一种水泵{}，用于输送水。",
            ["一种水泵{}。", "根据权利要求1所述的水泵。"],
            "其流量为{}升。\n良好。",
        ),
    }
    title, abstract, claims, description = texts[language]
    whole: Record = {
        "id": f"{'US' if language == 'en' else 'CN'}-{number}-A",
        "office": "US" if language == "en" else "CN",
        "kind": "A",
        "language": language,
        "date": None,
        "application_id": f"X-{number}",
        "family_id": None,
        "title": title.format(number),
        "abstract": abstract.format(number),
        "claims": [claim.format(number) for claim in claims],
        "description": description.format(number),
        "ipc": None,
        "source": f"a#{number}",
    }
    return {**whole, **fields}  # type: ignore[typeddict-item]


RECORDS = [record(number, language) for number in range(400) for language in ("zh", "en")]
CONFIG = PackConfig(validation_share=0.2)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer that was trained on the records; its folder is `name_or_path`."""
    folder = tmp_path_factory.mktemp("tokenizer")
    prepare_tokenizer(TokenizerConfig(vocabulary_size=400), record_texts(iter(RECORDS)), folder)
    return AutoTokenizer.from_pretrained(folder)


def packed_from(
    config: PackConfig, tokenizer: Any, shards: list[list[Record]], folder: Path, workers: int = 1
) -> dict[str, Any]:
    """Write the records as shards beside `folder`, and pack them into it."""
    files = []
    for number, records in enumerate(shards):
        files.append(folder.parent / f"{folder.name}-{number}.parquet")
        pq.write_table(pa.Table.from_pylist(records, SCHEMA), files[-1])
    with open_executor(EngineConfig(workers=workers)) as executor:
        return pack(config, Path(tokenizer.name_or_path), files, folder, executor)


@pytest.fixture(scope="session")
def packed(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The packed records, and the counts."""
    folder = tmp_path_factory.mktemp("pack") / "pack"
    return folder, packed_from(CONFIG, tokenizer, [RECORDS], folder)


def side(name: str) -> list[Record]:
    """The records of a split, in order."""
    return [found for found in RECORDS if split_of(found, CONFIG) == name]


@pytest.mark.parametrize("name", ["train", "validation"])
def test_every_record_is_one_document_from_beginning_to_end_token(
    packed: tuple[Path, dict[str, Any]], tokenizer: Any, name: str
) -> None:
    documents = Documents(packed[0] / name)
    records = side(name)
    assert len(documents) == len(records) > 0
    for i, found in enumerate(records):
        ids = documents[i]
        assert ids[0] == tokenizer.bos_token_id
        assert ids[-1] == tokenizer.eos_token_id
        assert not np.isin(ids[1:-1], tokenizer.all_special_ids).any()
        assert tokenizer.decode(ids[1:-1]) == layout(found, CONFIG.parts)


@pytest.mark.parametrize("name", ["train", "validation"])
def test_the_size_of_every_document_in_utf8_stands_beside_it(
    packed: tuple[Path, dict[str, Any]], name: str
) -> None:
    sizes = np.load(packed[0] / f"{name}.bytes.npy")
    assert sizes.dtype == np.int64
    assert sizes.tolist() == [len(layout(found, CONFIG.parts).encode()) for found in side(name)]


def test_counts_add_up(packed: tuple[Path, dict[str, Any]]) -> None:
    folder, counts = packed
    for name in ("train", "validation"):
        texts = [layout(found, CONFIG.parts) for found in side(name)]
        assert counts[name] == {
            "documents": len(texts),
            "tokens": int(Documents(folder / name).lengths.sum()),
            "characters": sum(map(len, texts)),
            "bytes": sum(len(text.encode()) for text in texts),
        }
    assert counts["documents"] == {"CN": {"zh": 400}, "US": {"en": 400}}
    total = sum(n for languages in counts["tokens"].values() for n in languages.values())
    assert total == counts["train"]["tokens"] + counts["validation"]["tokens"]


@pytest.mark.parametrize(("shards", "workers"), [(1, 1), (3, 1), (3, 2)])
def test_any_number_of_shards_and_workers_gives_the_same_bytes(
    packed: tuple[Path, dict[str, Any]], tokenizer: Any, tmp_path: Path, shards: int, workers: int
) -> None:
    size = len(RECORDS) // shards
    parts = [RECORDS[i * size : (i + 1) * size if i < shards - 1 else None] for i in range(shards)]
    counts = packed_from(CONFIG, tokenizer, parts, tmp_path / "out", workers)
    assert counts == packed[1]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == sorted(
        f"{name}.{end}" for name in ("train", "validation") for end in ("bin", "bytes.npy", "idx")
    )
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (packed[0] / name).read_bytes()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_about_the_asked_share_of_inventions_is_held_out(share: float, seed: int) -> None:
    config = PackConfig(validation_share=share, seed=seed)
    held_out = sum(split_of(record(number), config) == "validation" for number in range(5000))
    assert held_out == pytest.approx(5000 * share, abs=4 * (5000 * share * (1 - share)) ** 0.5)


@pytest.mark.parametrize(
    "texts",
    [
        [record(1, "en"), record(1, "zh")],
        [record(1, "en", family_id="F"), record(2, "zh", family_id="F")],
        [record(1, "en", application_id=None), record(1, "zh", application_id=None, id="US-1-A")],
    ],
)
def test_all_texts_of_one_invention_stand_on_one_side(texts: list[Record]) -> None:
    sides = [
        [split_of(text, PackConfig(validation_share=0.5, seed=seed)) for text in texts] for seed in range(64)
    ]
    assert all(one == other for one, other in sides)
    assert {one for one, _ in sides} == {"train", "validation"}, "which side, the seed decides"


@pytest.mark.parametrize(
    ("fields", "parts", "text"),
    [
        ({}, ["title", "abstract"], "Pump 7\n\nA pump 7 moves water."),
        ({}, ["abstract", "title"], "A pump 7 moves water.\n\nPump 7"),
        ({}, ["claims"], "1. A pump 7.\n2. The pump of claim 1."),
        (
            {},
            ["title", "claims", "description"],
            "Pump 7\n\n1. A pump 7.\n2. The pump of claim 1.\n\nIt pumps 7 l.\nWell.",
        ),
        ({"abstract": None}, ["title", "abstract", "description"], "Pump 7\n\nIt pumps 7 l.\nWell."),
        ({"claims": None}, ["claims", "title"], "Pump 7"),
        ({"claims": ["One."]}, ["claims"], "1. One."),
        ({"title": None}, ["title"], ""),
        ({}, [], ""),
    ],
)
def test_a_document_is_laid_out_part_by_part(fields: dict[str, Any], parts: list[Part], text: str) -> None:
    assert layout(record(7, **fields), parts) == text


def test_without_a_beginning_token_a_document_begins_with_the_end_token(
    tokenizer: Any, tmp_path: Path
) -> None:
    other = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    other.bos_token = None
    other.save_pretrained(tmp_path / "other")
    other.name_or_path = str(tmp_path / "other")
    packed_from(PackConfig(validation_share=0), other, [RECORDS[:2]], tmp_path / "out")
    ids = Documents(tmp_path / "out" / "train")[0]
    assert ids[0] == ids[-1] == tokenizer.eos_token_id
    assert len(Documents(tmp_path / "out" / "validation")) == 0


def test_a_corpus_without_a_document_to_train_on_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no document is left to train on"):
        packed_from(CONFIG, tokenizer, [[]], tmp_path / "nothing")
    with pytest.raises(UserError, match="no document is left to train on"):
        packed_from(CONFIG, tokenizer, [side("validation")], tmp_path / "held-out")


@pytest.mark.parametrize(
    "settings", [{"validation_share": 1}, {"validation_share": -0.1}, {"seed": -1}, {"parts": ["ipc"]}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PackConfig(**settings)


@pytest.mark.parametrize("number", [0, 1, 3, 4, 7, 8])
def test_batches_hold_every_record_once(number: int) -> None:
    found = list(batches(iter(RECORDS[:number]), 4))
    assert [one for batch in found for one in batch] == RECORDS[:number]
    assert all(len(batch) == 4 for batch in found[:-1])


def test_the_name_of_a_special_token_inside_a_patent_is_text(tmp_path: Path, tokenizer: Any) -> None:
    """An end token in the middle of a document would teach the model to stop there."""
    tagged = record(1, description="The tag </s> closes, <s> opens. " * 5)
    packed_from(PackConfig(validation_share=0), tokenizer, [[tagged]], tmp_path / "out")
    ids = Documents(tmp_path / "out" / "train")[0].tolist()
    assert ids.count(tokenizer.eos_token_id) == ids.count(tokenizer.bos_token_id) == 1
    assert "</s> closes" in tokenizer.decode(ids[1:-1])


def test_a_record_with_none_of_the_parts_is_dropped_and_counted(tmp_path: Path, tokenizer: Any) -> None:
    records = [record(1), record(2, description=None)]
    config = PackConfig(parts=("description",), validation_share=0)
    counts = packed_from(config, tokenizer, [records], tmp_path / "out")
    assert counts["train"]["documents"] == 1
    assert counts["dropped"] == {"empty": 1}
