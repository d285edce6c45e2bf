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
from data.layout import layout
from data.pack import PackConfig, pack
from data.record import SCHEMA, Record
from data.seen import read_seen
from data.shuffle import order_key
from data.split import split_of
from data.tokenizer import TokenizerConfig, prepare_tokenizer, record_texts


def record(number: int, /, text: str = "en", **fields: Any) -> Record:
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
    title, abstract, claims, description = texts[text]
    whole: Record = {
        "id": f"{'US' if text == 'en' else 'CN'}-{number}-A",
        "office": "US" if text == "en" else "CN",
        "kind": "A",
        "language": text,
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
EVERYTHING = PackConfig(validation_share=0)


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


def side(name: str, config: PackConfig = CONFIG) -> list[Record]:
    """The records of a split, in the order of the seed."""
    found = [record for record in RECORDS if split_of(record, config) == name]
    return sorted(found, key=lambda record: place(record, config))


def place(record: Record, config: PackConfig) -> int:
    text = layout(record, config).encode()
    return order_key(record["id"], record["language"], text, config.seed)


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
        assert tokenizer.decode(ids[1:-1]) == layout(found, CONFIG)


@pytest.mark.parametrize("name", ["train", "validation"])
def test_the_size_of_every_document_in_utf8_stands_beside_it(
    packed: tuple[Path, dict[str, Any]], name: str
) -> None:
    sizes = np.load(packed[0] / f"{name}.bytes.npy")
    assert sizes.dtype == np.int64
    assert sizes.tolist() == [len(layout(found, CONFIG).encode()) for found in side(name)]


def test_counts_add_up(packed: tuple[Path, dict[str, Any]]) -> None:
    folder, counts = packed
    for name in ("train", "validation"):
        texts = [layout(found, CONFIG) for found in side(name)]
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
    ends = ("bin", "bytes.npy", "idx")
    assert names == sorted(
        ["seen.parquet", *(f"{name}.{end}" for name in ("train", "validation") for end in ends)]
    )
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (packed[0] / name).read_bytes()


@pytest.mark.parametrize("name", ["train", "validation"])
def test_another_seed_is_another_order_of_the_same_documents(
    tokenizer: Any, tmp_path: Path, name: str
) -> None:
    config = PackConfig(validation_share=0.5, seed=1)
    packed_from(config, tokenizer, [RECORDS[:100], RECORDS[100:200]], tmp_path / "out")
    documents = Documents(tmp_path / "out" / name)
    texts = [tokenizer.decode(documents[i][1:-1]) for i in range(len(documents))]
    records = [found for found in RECORDS[:200] if split_of(found, config) == name]
    assert texts == [layout(found, config) for found in sorted(records, key=lambda one: place(one, config))]
    assert texts != [layout(found, config) for found in sorted(records, key=lambda one: place(one, CONFIG))]
    assert texts != [layout(found, config) for found in records]


def test_tokens_per_character_by_language_and_source(tokenizer: Any, tmp_path: Path) -> None:
    records = [record(1), record(2, "zh"), record(3, "zh")]
    counts = packed_from(
        PackConfig(validation_share=0), tokenizer, [records[:2], records[2:]], tmp_path / "out"
    )
    for language, some in (("en", records[:1]), ("zh", records[1:])):
        texts = [layout(found, CONFIG) for found in some]
        ids = sum(len(tokenizer(text, add_special_tokens=False).input_ids) for text in texts)
        found = counts["by_language"][language]
        assert (found["documents"], found["tokens"]) == (len(some), ids + 2 * len(some))
        assert found["tokens_per_character"] == pytest.approx(ids / sum(map(len, texts)))
    assert counts["by_source"]["unknown"]["documents"] == 3


def test_what_was_trained_on_is_written_down(packed: tuple[Path, dict[str, Any]]) -> None:
    rows = [row for batch in read_seen(packed[0]) for row in batch.to_pylist()]
    records = side("train")
    assert [(row["id"], row["language"]) for row in rows] == [(one["id"], one["language"]) for one in records]
    assert [row["application"] for row in rows] == [one["application_id"] for one in records]


@pytest.mark.parametrize(("dtype", "code", "size"), [("smallest", np.uint16, 2), ("int32", np.int32, 4)])
def test_ids_are_as_short_as_the_vocabulary_allows_or_int32(
    tokenizer: Any, tmp_path: Path, dtype: Any, code: Any, size: int
) -> None:
    counts = packed_from(
        PackConfig(validation_share=0, dtype=dtype), tokenizer, [RECORDS[:4]], tmp_path / "out"
    )
    assert Documents(tmp_path / "out" / "train").dtype == code
    assert (tmp_path / "out" / "train.bin").stat().st_size == size * counts["train"]["tokens"]


def test_killed_between_its_marks_and_its_parts_it_packs_the_same(
    packed: tuple[Path, dict[str, Any]], tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mark without its files would pass for a finished shard."""
    parts = [RECORDS[:300], RECORDS[300:]]

    unlink = Path.unlink

    def killed(path: Path) -> None:
        if path.name.startswith("shard-00001"):
            raise KeyboardInterrupt
        unlink(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            packed_from(CONFIG, tokenizer, parts, tmp_path / "out")
    assert packed_from(CONFIG, tokenizer, parts, tmp_path / "out") == packed[1]
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        path.name: path.read_bytes() for path in packed[0].iterdir()
    }


def test_without_a_beginning_token_a_document_begins_with_the_end_token(
    tokenizer: Any, tmp_path: Path
) -> None:
    other = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    other.bos_token = None
    other.save_pretrained(tmp_path / "other")
    other.name_or_path = str(tmp_path / "other")
    packed_from(EVERYTHING, other, [RECORDS[:2]], tmp_path / "out")
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


def test_the_name_of_a_special_token_inside_a_patent_is_text(tmp_path: Path, tokenizer: Any) -> None:
    """An end token in the middle of a document would teach the model to stop there."""
    tagged = record(1, description="The tag </s> closes, <s> opens. " * 5)
    packed_from(EVERYTHING, tokenizer, [[tagged]], tmp_path / "out")
    ids = Documents(tmp_path / "out" / "train")[0].tolist()
    assert ids.count(tokenizer.eos_token_id) == ids.count(tokenizer.bos_token_id) == 1
    assert "</s> closes" in tokenizer.decode(ids[1:-1])


def test_a_record_with_none_of_the_parts_is_dropped_and_counted(tmp_path: Path, tokenizer: Any) -> None:
    records = [record(1), record(2, description=None)]
    config = PackConfig(parts=("description",), validation_share=0)
    counts = packed_from(config, tokenizer, [records], tmp_path / "out")
    assert counts["train"]["documents"] == 1
    assert counts["dropped"] == {"empty": 1}
