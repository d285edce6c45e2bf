"""The held-out documents as text: those that were packed, to the byte, and none that was trained on."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from core.errors import UserError
from core.provenance import manifest
from data import texts
from data.packing.indexed_dataset import Documents
from data.patent_numbers import publication_key
from tests.conftest import run


def corpus(folder: Path, *more: str) -> Path:
    """A finished corpus of made-up inventions."""
    done = run(
        "data", "run", f"output_dir={folder}", "synthetic={inventions: 30}",
        "tokenizer={vocabulary_size: 1500}", "pack.validation_share=0.3", "pack.claims=separate", *more,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def packed(folder: Path) -> list[str]:
    """The held-out documents as they were packed, decoded."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    documents = Documents(folder / "pack" / "validation")
    decoded = (tokenizer.decode(documents[each], skip_special_tokens=True) for each in range(len(documents)))
    return sorted(text.strip() for text in decoded)


def written(folder: Path) -> list[dict[str, str]]:
    """The lines of a folder of texts."""
    return [json.loads(line) for line in (folder / texts.FILE).read_text("utf-8").splitlines()]


def test_the_texts_are_the_documents_that_are_held_out(tmp_path: Path) -> None:
    first = corpus(tmp_path / "first")
    more = tmp_path / "more"
    made = run("data", "synthesize", "--inventions", "20", "--seed", "5", "--output", more)
    assert made.returncode == 0, made.stderr
    second = corpus(tmp_path / "second", f"extends=[{first}]", f"sources=[{more}/records.jsonl]")
    for folder in (first, second):
        done = run("data", "texts", folder, "--output", tmp_path / f"texts-{folder.name}")
        assert done.returncode == 0, done.stderr
        rows = written(tmp_path / f"texts-{folder.name}")
        counts = manifest.read(folder / "pack")["counts"]["validation"]
        assert len(rows) == counts["documents"] > 10
        n = counts["documents"]
        assert f"{n} of {n} held-out documents ({counts['bytes']:,} bytes)" in done.stdout
        assert sorted(row["text"] for row in rows) == packed(folder)
        assert len({row["id"] for row in rows}) == len(rows)
        texts.write(folder, tmp_path / f"some-{folder.name}", 7)
        some = written(tmp_path / f"some-{folder.name}")
        assert len(some) == 7
        assert some == [row for row in rows if row in some]
        seen = pq.read_table(folder / "pack" / "seen.parquet")["id"].to_pylist()
        assert not {row["publication"] for row in rows} & set(seen)


def test_what_is_not_held_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished corpus"):
        texts.write(tmp_path / "none", tmp_path / "texts")
    folder = corpus(tmp_path / "corpus")
    texts.write(folder, tmp_path / "texts")
    trained = pq.read_table(folder / "pack" / "seen.parquet")
    held_out = written(tmp_path / "texts")[0]["publication"]
    rows = trained.to_pylist()
    rows[3] |= {"publication": publication_key(held_out)}
    pq.write_table(pa.Table.from_pylist(rows, trained.schema), folder / "pack" / "seen.parquet")
    with pytest.raises(UserError, match=f"{held_out} is held out, but .* was trained on: publication"):
        texts.write(folder, tmp_path / "again")
    shard = next((folder / "decontaminate").glob("shard-*.parquet"))
    records = pq.read_table(shard)
    pq.write_table(pa.concat_tables([records, records]), shard)
    with pytest.raises(UserError, match="were packed"):
        texts.write(folder, tmp_path / "again")
    assert not (tmp_path / "again").exists()
