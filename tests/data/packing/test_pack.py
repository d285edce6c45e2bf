"""A packed corpus: every record a document, an order that only the seed decides, counts that add up."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from core.errors import UserError
from data.corpus_report import describe
from data.dedup.ngram_index import EvalSample
from data.dedup.training_index import find_seen
from data.executor import EngineConfig, open_executor
from data.packing.document_text import documents, layout
from data.packing.indexed_dataset import Documents
from data.packing.pack import PackConfig, pack, sample
from data.packing.tokenizer import TokenizerConfig, prepare_tokenizer, record_texts
from data.packing.train_val_split import SPLITS, split_of
from data.record import Record
from tests.data.records import record, write_shards

RECORDS = [record(number, like) for number in range(400) for like in ("zh", "en")]
CONFIG = PackConfig(validation_share=0.2)
ALL = PackConfig(validation_share=0)
Packed = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer that was trained on the records; its folder is `name_or_path`."""
    folder = tmp_path_factory.mktemp("tokenizer")
    prepare_tokenizer(TokenizerConfig(vocabulary_size=400), record_texts(iter(RECORDS)), folder)
    return AutoTokenizer.from_pretrained(folder)


def packed_from(
    config: PackConfig,
    tokenizer: Any,
    shards: list[list[Record]],
    folder: Path,
    workers: int = 1,
    **more: Any,
) -> dict[str, Any]:
    """Write the records as shards beside `folder`, and pack them into it."""
    files = write_shards(shards, folder.parent / f"{folder.name}-records")
    with open_executor(EngineConfig(workers=workers)) as executor:
        return pack(config, Path(tokenizer.name_or_path), files, folder, executor, **more)


@pytest.fixture(scope="session")
def packed(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """The packed records, and the counts."""
    folder = tmp_path_factory.mktemp("pack") / "pack"
    return folder, packed_from(CONFIG, tokenizer, [RECORDS], folder)


def side(name: str) -> list[Record]:
    """The records of a split."""
    return [found for found in RECORDS if split_of(found, CONFIG) == name]


def texts(folder: Path, name: str, tokenizer: Any) -> list[str]:
    """The texts of a split's documents, in their order."""
    documents = Documents(folder / name)
    return [tokenizer.decode(documents[i][1:-1]) for i in range(len(documents))]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", SPLITS)
def test_every_record_is_one_document_from_beginning_to_end_token(
    packed: Packed, tokenizer: Any, name: str
) -> None:
    documents = Documents(packed[0] / name)
    for i in range(len(documents)):
        ids = documents[i]
        assert ids[0] == tokenizer.bos_token_id
        assert ids[-1] == tokenizer.eos_token_id
        assert not np.isin(ids[1:-1], tokenizer.all_special_ids).any()
    found = texts(packed[0], name, tokenizer)
    assert len(found) > 50
    assert Counter(found) == Counter(layout(each, CONFIG) for each in side(name))
    sizes = np.load(packed[0] / f"{name}.bytes.npy")
    assert sizes.dtype == np.int64
    assert sizes.tolist() == [len(text.encode()) for text in found]


def test_what_was_seen_is_said_row_by_row_of_the_training_documents(packed: Packed, tokenizer: Any) -> None:
    by_id = {each["id"]: each for each in RECORDS}
    rows = pq.read_table(packed[0] / "seen.parquet").to_pylist()
    found = texts(packed[0], "train", tokenizer)
    assert found == [layout(by_id[row["id"]], CONFIG) for row in rows]
    sample = EvalSample("set", "s", side("train")[0]["abstract"] or "")
    assert [each.id for each in find_seen(packed[0], [sample])] == [side("train")[0]["id"]]
    held_out = [EvalSample("set", "s", each["abstract"] or "") for each in side("validation")]
    assert not list(find_seen(packed[0], held_out))


def test_counts_add_up(packed: Packed) -> None:
    folder, counts = packed
    for name in SPLITS:
        found = [layout(each, CONFIG) for each in side(name)]
        assert counts[name] == {
            "documents": len(found),
            "tokens": int(Documents(folder / name).lengths.sum()),
            "characters": sum(map(len, found)),
            "bytes": sum(len(text.encode()) for text in found),
        }
    assert counts["documents"] == {"CN": {"zh": 400}, "US": {"en": 400}}
    total = counts["train"]["tokens"] + counts["validation"]["tokens"]
    for groups in (counts["by_language"], counts["by_source"]):
        assert sum(each["tokens"] for each in groups.values()) == total
        assert sum(each["documents"] for each in groups.values()) == 800
    assert sum(n for languages in counts["tokens"].values() for n in languages.values()) == total


def test_tokens_a_character_are_those_of_the_texts_alone(tmp_path: Path, tokenizer: Any) -> None:
    """Signs that the tokenizer does not know are three bytes each, behind one token for the beginning."""
    shards = [
        [record(1, language="zh", title="龘靐"), record(2, language="zh", title="龘")],
        [record(3, language="ja", title="龘龘龘龘")],
        [record(4, language=None, title="靐龘")],
    ]
    config = PackConfig(parts=("title",), validation_share=0)
    sources = ["offices", "books", "offices"]
    counts = packed_from(config, tokenizer, shards, tmp_path / "out", sources=sources)
    names = ("documents", "tokens", "characters", "bytes", "tokens_per_character")
    by_language = {name: [each[what] for what in names] for name, each in counts["by_language"].items()}
    assert by_language == {
        "ja": [1, 15, 4, 12, 13 / 4],
        "unknown": [1, 9, 2, 6, 7 / 2],
        "zh": [2, 15, 3, 9, 11 / 3],
    }
    by_source = {name: [each[what] for what in names] for name, each in counts["by_source"].items()}
    assert by_source == {"books": [1, 15, 4, 12, 13 / 4], "offices": [3, 24, 5, 15, 18 / 5]}


@pytest.mark.parametrize(("shards", "workers"), [(1, 1), (3, 1), (7, 2)])
def test_the_seed_alone_decides_the_order(
    packed: Packed, tokenizer: Any, tmp_path: Path, shards: int, workers: int
) -> None:
    parts = [RECORDS[::-1][i::shards] for i in range(shards)]
    counts = packed_from(CONFIG, tokenizer, parts, tmp_path / "out", workers)
    assert counts == packed[1]
    found = contents(tmp_path / "out")
    assert sorted(found) == [
        "seen.parquet", "train.bin", "train.bytes.npy", "train.idx",
        "validation.bin", "validation.bytes.npy", "validation.idx",
    ]  # fmt: skip
    assert found == contents(packed[0])


def test_another_seed_gives_another_order_and_both_mix_languages(tokenizer: Any, tmp_path: Path) -> None:
    orders = []
    for seed in (0, 1):
        config = PackConfig(validation_share=0, seed=seed)
        packed_from(config, tokenizer, [RECORDS], tmp_path / str(seed))
        orders.append(pq.read_table(tmp_path / str(seed) / "seen.parquet")["id"].to_pylist())
    written = [each["id"] for each in RECORDS]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(written)
    assert orders[0] != orders[1]
    for order in orders:
        places = np.array([written.index(each) for each in order])
        assert abs(np.corrcoef(places, np.arange(len(places)))[0, 1]) < 0.15
        chinese = [each.startswith("CN") for each in order]
        assert 250 < sum(a != b for a, b in itertools.pairwise(chinese)) < 550


def test_an_invention_stays_on_its_side_in_a_corpus_that_extends(tokenizer: Any, tmp_path: Path) -> None:
    """The new records name another family, and the application by which they belong to an old one."""
    new = [record(n, "zh", family_id=f"F-{n}") for n in range(60)]
    earlier = write_shards([[record(n) for n in range(60)]], tmp_path / "earlier")
    packed_from(CONFIG, tokenizer, [new], tmp_path / "out", earlier=[earlier])
    found = set(pq.read_table(tmp_path / "out" / "seen.parquet")["application"].to_pylist())
    wanted = {f"X-{n}" for n in range(60) if split_of(record(n), CONFIG) == "train"}
    assert found == wanted
    packed_from(CONFIG, tokenizer, [new], tmp_path / "alone")
    assert set(pq.read_table(tmp_path / "alone" / "seen.parquet")["application"].to_pylist()) != wanted


class Killed(BaseException):
    """Nothing of a run may catch what stands for a kill."""


def test_killed_while_it_tidies_up_the_same_command_makes_the_same_corpus(
    packed: Packed, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended before each removal of a file in turn, of marks and parts alike."""
    shards = [RECORDS[i::3] for i in range(3)]
    remove, removed = Path.unlink, itertools.count()

    def remove_some(path: Path, missing_ok: bool = False) -> None:
        if next(removed) == moment:
            raise Killed
        remove(path, missing_ok)

    files = write_shards(shards, tmp_path / "records")
    for moment in itertools.count():
        folder, removed = tmp_path / f"killed-{moment}", itertools.count()
        with monkeypatch.context() as patched:
            patched.setattr(Path, "unlink", remove_some)
            try:
                pack(CONFIG, Path(tokenizer.name_or_path), files, folder, None)
                break
            except Killed:
                pass
        assert pack(CONFIG, Path(tokenizer.name_or_path), files, folder, None) == packed[1]
        assert contents(folder) == contents(packed[0])
    assert moment > 3 * (1 + 2 * 3), "marks, and ids, index and rows of both sides"


@pytest.mark.parametrize(
    ("dtype", "tokens", "found"),
    [("smallest", 0, np.uint16), ("int32", 0, np.int32), ("smallest", 65_537, np.int32)],
)
def test_ids_have_two_bytes_where_the_vocabulary_and_the_configuration_allow_it(
    tokenizer: Any, tmp_path: Path, dtype: Any, tokens: int, found: type[np.generic]
) -> None:
    larger = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    larger.add_tokens([f"<{number}>" for number in range(tokens - len(larger))])
    larger.save_pretrained(tmp_path / "larger")
    larger.name_or_path = str(tmp_path / "larger")
    packed_from(PackConfig(validation_share=0, dtype=dtype), larger, [RECORDS[:2]], tmp_path / "out")
    assert Documents(tmp_path / "out" / "train").dtype == found
    assert sorted(texts(tmp_path / "out", "train", larger)) == sorted(layout(r, CONFIG) for r in RECORDS[:2])


def test_encoders_are_compared_on_pieces_from_all_places_of_documents_from_many_shards(
    tmp_path: Path,
) -> None:
    letters = "".join(chr(ord("a") + place // 5000) for place in range(50_000))
    records = [[record(n, description=letters)] * 30 for n in range(45)]
    pieces = list(sample(write_shards(records, tmp_path / "records"), PackConfig(parts=("description",))))
    assert 200 <= len(pieces) <= 400
    assert {len(piece) for piece in pieces} == {2500}
    assert set().union(*pieces) == set("abcdefghij")


def test_without_a_beginning_token_a_document_begins_with_the_end_token(
    tokenizer: Any, tmp_path: Path
) -> None:
    other = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    other.bos_token = None
    other.save_pretrained(tmp_path / "other")
    other.name_or_path = str(tmp_path / "other")
    packed_from(ALL, other, [RECORDS[:2]], tmp_path / "out")
    ids = Documents(tmp_path / "out" / "train")[0]
    assert ids[0] == ids[-1] == tokenizer.eos_token_id
    assert len(Documents(tmp_path / "out" / "validation")) == 0


def test_a_corpus_without_a_document_to_train_on_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no document is left to train on"):
        packed_from(CONFIG, tokenizer, [[]], tmp_path / "nothing")
    with pytest.raises(UserError, match="no document is left to train on"):
        packed_from(CONFIG, tokenizer, [side("validation")], tmp_path / "held-out")


def test_the_name_of_a_special_token_inside_a_patent_is_text(tmp_path: Path, tokenizer: Any) -> None:
    """An end token in the middle of a document would teach the model to stop there."""
    tagged = record(1, description="The tag </s> closes, <s> opens. " * 5)
    packed_from(ALL, tokenizer, [[tagged]], tmp_path / "out")
    ids = Documents(tmp_path / "out" / "train")[0].tolist()
    assert ids.count(tokenizer.eos_token_id) == ids.count(tokenizer.bos_token_id) == 1
    assert "</s> closes" in tokenizer.decode(ids[1:-1])


def test_a_record_with_none_of_the_parts_is_dropped_and_counted(tmp_path: Path, tokenizer: Any) -> None:
    records = [record(1), record(2, description=None)]
    config = PackConfig(parts=("description",), validation_share=0)
    counts = packed_from(config, tokenizer, [records], tmp_path / "out")
    assert counts["train"]["documents"] == 1
    assert counts["dropped"] == {"empty": 1}


@pytest.mark.parametrize("shards", [1, 3])
def test_separate_claims_are_on_the_side_of_their_record_and_may_be_anywhere_in_it(
    packed: Packed, tokenizer: Any, tmp_path: Path, shards: int
) -> None:
    config = PackConfig(validation_share=0.2, claims="separate")
    counts = packed_from(config, tokenizer, [RECORDS[i::shards] for i in range(shards)], tmp_path / "out")
    for name in SPLITS:
        found = texts(tmp_path / "out", name, tokenizer)
        wanted = [text for each in side(name) for text in documents(each, config).texts]
        assert sorted(found) == sorted(wanted)
        assert counts[name]["documents"] == len(found) == 2 * packed[1][name]["documents"]
        sizes = np.load(tmp_path / "out" / f"{name}.bytes.npy").tolist()
        assert sizes == [len(text.encode()) for text in found]
    by_id = {each["id"]: documents(each, config).texts for each in RECORDS}
    ids = pq.read_table(tmp_path / "out" / "seen.parquet")["id"].to_pylist()
    found = texts(tmp_path / "out", "train", tokenizer)
    assert all(text in by_id[name] for name, text in zip(ids, found, strict=True))
    assert sum(a == b for a, b in itertools.pairwise(ids)) < 10, "the two documents are no neighbours"
    assert counts["dropped"] == {}


def test_separate_claims_do_not_depend_on_shards(tokenizer: Any, tmp_path: Path) -> None:
    config = PackConfig(validation_share=0.2, claims="separate")
    for name, shards in (("one", 1), ("many", 4)):
        packed_from(config, tokenizer, [RECORDS[i::shards] for i in range(shards)], tmp_path / name)
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


def test_what_is_left_out_is_counted_by_section(tokenizer: Any, tmp_path: Path) -> None:
    described = "FIELD\nPumps.\nDRAWINGS\nFIG. 1\nDESCRIPTION OF EMBODIMENTS\nIt pumps 7 l."
    records = [record(n, description=described) for n in range(3)] + [record(3, description="FIELD\nPumps.")]
    config = PackConfig(parts=("description",), leave_out=("drawings", "field"), validation_share=0)
    counts = packed_from(config, tokenizer, [records], tmp_path / "out")
    assert counts["left_out"] == {"field": 3 * 13 + 12, "drawings": 3 * 16}
    assert counts["dropped"] == {"empty": 1}
    assert counts["train"]["documents"] == 3
    empty = [record(1, description=None)]
    counts = packed_from(config, tokenizer, [records, empty], tmp_path / "with-empty")
    assert counts["dropped"] == {"empty": 2}


def test_what_repeats_the_claims_is_counted_by_language(tokenizer: Any, tmp_path: Path) -> None:
    repeated = "一种水泵，包括泵体和叶轮，所述叶轮设置在泵体内。"
    chinese = record(1, "zh", claims=[repeated], description=f"水泵。{repeated}\n良好。")
    config = PackConfig(repeated_claims="once", validation_share=0)
    counts = packed_from(config, tokenizer, [[chinese, record(2)]], tmp_path / "out")
    assert counts["repeated_claims"] == {"zh": len(repeated)}
    lines = describe("pack", counts)
    assert any(f"zh: {len(repeated)} characters (" in line for line in lines)
