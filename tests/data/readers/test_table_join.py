"""PatentsView's tables, each with a part of every patent, become one record a patent."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.executor import EngineConfig, open_executor
from data.inspect_sources import inspect
from data.readers import ingest as module
from data.readers.ingest import ingest
from data.readers.record_filter import SelectConfig
from data.readers.source import Source
from data.record import Record
from data.record_store import read_records, shard_files

PATENTS = 30
DEFAULTS = {"office": "US", "language": "en"}
TABLES: dict[str, tuple[str, Callable[[int], list[list[str]]]]] = {
    # the columns of PatentsView's bulk tables, and the rows of patent number n
    "g_patent": (
        "patent_id patent_type patent_date patent_title wipo_kind num_claims withdrawn filename",
        lambda n: [[f"{9_000_000 + n}", "utility", "2020-01-07", f"Pump {n}", "B2", "2", "0", "a.xml"]],
    ),
    "g_patent_abstract": (
        "patent_id patent_abstract",
        lambda n: [[f"{9_000_000 + n}", f"A pump {n} pumps."]],
    ),
    "g_claims_2020": (
        "patent_id claim_sequence claim_text dependent claim_number exemplary",
        lambda n: [
            [f"{9_000_000 + n}", "0", f"1. A pump {n}.", "", "1", "1"],
            [f"{9_000_000 + n}", "1", "2. The pump of claim 1.", "claim 1", "2", "0"],
        ],
    ),
    "g_brf_sum_text_2020": (
        "patent_id summary_text",
        lambda n: [[f"{9_000_000 + n}", f"SUMMARY\nIt pumps {n}."]],
    ),
    "g_draw_desc_text_2020": (
        "patent_id draw_desc_sequence draw_desc_text",
        lambda n: [[f"{9_000_000 + n}", f"{f}", f"FIG. {f + 1} shows pump {n}."] for f in range(2)],
    ),
    "g_detail_desc_text_2020": (
        "patent_id description_text description_length",
        lambda n: [[f"{9_000_000 + n}", f"The rotor {n} turns.", "20"]],
    ),
}  # fmt: skip
ROWS = PATENTS * (1 + 1 + 1 + 1 + 2 + 1)
"""The rows of a patent's claims are one."""


def write(folder: Path, prefix: dict[str, str] | None = None) -> Source:
    """The tables, each in its own order of patents; `prefix` begins the names of files, which orders them."""
    folder.mkdir(parents=True)
    for place, (name, (columns, rows)) in enumerate(TABLES.items()):
        numbers = [(n * 7 + place * 11) % PATENTS for n in range(PATENTS)]
        cells = [columns.split(), *itertools.chain.from_iterable(rows(n) for n in numbers)]
        text = "".join("\t".join(f'"{cell}"' for cell in row) + "\n" for row in cells)
        (folder / f"{(prefix or {}).get(name, '')}{name}.tsv").write_text(text)
    return Source(path=str(folder), defaults=DEFAULTS)


def without_source(records: list[Record]) -> list[dict[str, Any]]:
    """The records by id; their place is that of the files' names."""
    return sorted(
        ({name: value for name, value in record.items() if name != "source"} for record in records),
        key=lambda record: str(record["id"]),
    )


def expected(n: int) -> dict[str, Any]:
    return {
        **dict.fromkeys(Record.__annotations__),
        "id": f"US-{9_000_000 + n}-B2",
        "office": "US",
        "kind": "B2",
        "language": "en",
        "date": "2020-01-07",
        "title": f"Pump {n}",
        "abstract": f"A pump {n} pumps.",
        "claims": [f"A pump {n}.", "The pump of claim 1."],
        "description": f"SUMMARY\nIt pumps {n}.\nFIG. 1 shows pump {n}.\nFIG. 2 shows pump {n}.\n"
        f"The rotor {n} turns.",
    }


def test_the_tables_of_a_patent_are_one_record(tmp_path: Path) -> None:
    counts = ingest([write(tmp_path / "in")], tmp_path / "out", None)
    found = without_source(list(read_records(tmp_path / "out")))
    assert [{**record, "source": None} for record in found] == [expected(n) for n in range(PATENTS)]
    assert (counts["documents"], counts["records"], counts["noted"]) == (
        PATENTS,
        PATENTS,
        {"table-row": ROWS},
    )
    assert len(counts["shards"]) == len(shard_files(tmp_path / "out"))
    assert {path.name.split(".", 1)[1] for path in (tmp_path / "out").iterdir()} == {"parquet", "jsonl"}


def test_inspect_counts_patents_and_says_what_the_columns_are(tmp_path: Path) -> None:
    write(tmp_path / "in")
    said = inspect(tmp_path / "in", 1000).splitlines()
    (counts,) = (line.split() for line in said if line.startswith("# CSV "))
    assert counts == ["#", "CSV", "6", "30", "30", "0", "?", "30", "?", "30"]
    assert "#   claim_number -> claim_numbers" in said
    assert f"#   {ROWS} table-row" in said
    (source,) = yaml.safe_load("\n".join(said))["sources"]
    assert source["defaults"] == DEFAULTS


@pytest.mark.parametrize("first", TABLES)
def test_the_order_of_files_does_not_matter(tmp_path: Path, first: str) -> None:
    ingest([write(tmp_path / "in", {first: "0-"})], tmp_path / "out", None)
    found = without_source(list(read_records(tmp_path / "out")))
    assert [{**record, "source": None} for record in found] == [expected(n) for n in range(PATENTS)]


@pytest.mark.parametrize("shard_bytes", [500, 3000])
def test_neither_do_workers_and_shards(tmp_path: Path, shard_bytes: int) -> None:
    source = write(tmp_path / "in")
    (tmp_path / "in/z.jsonl").write_text('{"id": "EP-1-A1", "title": "Brush"}\n')
    ingest([source], tmp_path / "whole", None)
    ingest([source], tmp_path / "one", None, shard_bytes=shard_bytes)
    with open_executor(EngineConfig(workers=2)) as executor:
        ingest([source], tmp_path / "two", executor, shard_bytes=shard_bytes)
    files = [{path.name: path.read_bytes() for path in (tmp_path / run).iterdir()} for run in ("one", "two")]
    assert files[0] == files[1]
    assert len(files[0]) > 5
    one, whole = (list(read_records(tmp_path / run)) for run in ("one", "whole"))
    assert sorted(one, key=str) == sorted(whole, key=str)
    assert len(one) == PATENTS + 1


@pytest.mark.parametrize(
    "killed_at", ["ingest_shard", "join_bucket", "join_parts", "forget_shards", "remove_shards"]
)
def test_a_killed_run_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str) -> None:
    source = write(tmp_path / "in")
    counts = ingest([source], tmp_path / "whole", None, shard_bytes=3000)
    done: list[object] = []
    real = getattr(module, killed_at)

    def killed(*arguments: Any) -> Any:
        if len(done) == (2 if killed_at.endswith(("shard", "bucket")) else 0):
            raise KeyboardInterrupt
        done.append(arguments)
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(module, killed_at, killed)
        with pytest.raises(KeyboardInterrupt):
            ingest([source], tmp_path / "out", None, shard_bytes=3000)
    assert ingest([source], tmp_path / "out", None, shard_bytes=3000) == counts
    whole, resumed = (
        {p.name: p.read_bytes() for p in (tmp_path / run).iterdir()} for run in ("whole", "out")
    )
    assert whole == resumed


def test_a_selection_judges_the_joined_record(tmp_path: Path) -> None:
    select = SelectConfig(date_from="2020", kinds=("granted",), offices=("US",))
    counts = ingest([write(tmp_path / "in")], tmp_path / "out", None, select=select)
    assert (counts["dropped"], counts["records"]) == ({}, PATENTS)
    later = ingest([write(tmp_path / "in2")], tmp_path / "out2", None, select=SelectConfig(date_from="2021"))
    assert (later["dropped"], later["records"]) == ({"date": PATENTS}, 0)


def test_what_has_no_other_table_is_a_record_of_its_own(tmp_path: Path) -> None:
    """Claims whose patent is in no file, applications by their own number, and rows twice."""
    source = write(tmp_path / "in")
    claims = tmp_path / "in/g_claims_2020.tsv"
    claims.write_text(claims.read_text() + '"8111111"\t"0"\t"1. A fan."\t""\t"1"\t"1"\n')
    (tmp_path / "in/copy.tsv").write_text(claims.read_text())
    (tmp_path / "in/pg_claims_2020.tsv").write_text(
        "pgpub_id\tclaim_sequence\tclaim_text\tclaim_number\n20200000001\t0\t1. A kite.\t1\n"
    )
    (tmp_path / "in/pg_detail_desc_text_2020.tsv").write_text(
        "pgpub_id\tdescription_text\n20200000001\tIt flies.\n"
    )
    counts = ingest([source], tmp_path / "out", None)
    by_id = {record["id"]: record for record in read_records(tmp_path / "out")}
    assert counts["records"] == len(by_id) == PATENTS + 2
    assert by_id["US-8111111"]["claims"] == ["A fan."]
    assert by_id["US-9000003-B2"]["claims"] == expected(3)["claims"]
    kite = by_id["US-20200000001"]
    assert (kite["claims"], kite["description"]) == (["A kite."], "It flies.")


def test_claims_far_apart_are_in_their_order(tmp_path: Path) -> None:
    rows = [("1", "2", "2. C."), ("2", "0", "1. D."), ("1", "0", "1. A."), ("1", "9", "10. E.")]
    text = "".join(f"800000{p}\t{s}\t{t}\t{t.split('.')[0]}\n" for p, s, t in rows)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/g_claims.tsv").write_text(f"patent_id\tclaim_sequence\tclaim_text\tclaim_number\n{text}")
    ingest([Source(path=str(tmp_path / "in"))], tmp_path / "out", None)
    claims = {
        record["id"]: (record["claims"], record["claim_numbers"]) for record in read_records(tmp_path / "out")
    }
    assert claims == {"8000001": (["A.", "C.", "E."], [1, 2, 10]), "8000002": (["D."], None)}


def test_a_bad_row_costs_only_itself(tmp_path: Path) -> None:
    source = write(tmp_path / "in")
    table = tmp_path / "in/g_brf_sum_text_2020.tsv"
    table.write_text(table.read_text() + '"9000001"\t"a"\t"one too many"\n')
    counts = ingest([source], tmp_path / "out", None)
    assert (counts["documents"], counts["records"]) == (PATENTS + 1, PATENTS)
    (line,) = (tmp_path / "out/rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "bad-csv"
