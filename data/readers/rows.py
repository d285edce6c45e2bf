"""The one reader of rows: JSON, JSON lines, CSV, XLSX, Parquet, and data sets of the Hugging Face hub.

    file ──container──▶ tables (one per sheet) ──▶ rows: a place, and the cells by column or an error

Patents (`table_records`) and chats (`data.chat.row_reader`) both read rows here, and only add what their
columns mean. Rows are streamed. The rules are the same for every container:

- The header of CSV is its first line. In XLSX it is the first of the first HEADER_ROWS rows that has a column
  name the caller knows, so that a title may precede it; if none has, the first non-empty row.
- If a column name is used twice, the later column counts; `Table.columns` still has both. Columns without a
  name are ignored.
- An empty line or row of a text file is an `empty-row`; empty rows of a sheet are formatting and are skipped.
- A header without rows is an `empty-file`.
- Text is UTF-8, UTF-16 with a byte order mark, or (CSV) what `stream.encoding` recognises. A few bad
  bytes of a row become U+FFFD and are noted before it; more cost their own row.
- A file that is cut off gives the rows before the cut, then one error.

To add a container, enter it in CONTAINERS and in STARTS or SUFFIXES, and read it in `tables`.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from core.errors import UserError
from data.readers.csv_rows import csv_rows
from data.readers.json_rows import Knows, json_rows
from data.readers.row import Place, Row
from data.record import Rejected, bad_bytes
from data.stream import Content, Unreadable, decoded, seekable

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

CONTAINERS = ("JSON", "CSV", "XLSX", "Parquet")

STARTS = {rb"PAR1": "Parquet", rb"PK\x03\x04": "XLSX", rb"[\[{]": "JSON"}
"""Containers by their first bytes."""

SUFFIXES = {".jsonl": "JSON", ".ndjson": "JSON", ".csv": "CSV", ".tsv": "CSV"}
"""Containers by their suffix, for files that start with none of the bytes above."""

HEADER_ROWS = 10
"""The header of a sheet is searched in this many rows."""


class Table(NamedTuple):
    """Rows under one header."""

    columns: list[str] | None
    """The column names as they are in the file; None if every row brings its own."""
    rows: Iterator[Row]


def tables(content: Content, container: str, knows: Knows) -> Iterator[Table]:
    """The tables of a file, each to be read before the next one."""
    match container:
        case "JSON":
            yield Table(None, json_rows(content, knows))
        case "CSV":
            header, rows = csv_rows(content)
            yield Table(header, _or_empty(content, rows))
        case "XLSX":
            yield from _xlsx(content, knows)
        case "Parquet":
            yield _parquet(content)


def dataset_tables(dataset: str, revision: str | None, split: str | None) -> Iterator[tuple[str, Table]]:
    """Each split of a data set of the hub, or of a local folder that `datasets` can load, with its name.

    It is streamed; offline (HF_HUB_OFFLINE=1) it is read from the cache. Raises UserError if it is not found.
    """
    for name, found in _load_dataset(dataset, revision, split).items():
        rows = ((Place(number), dict(row)) for number, row in enumerate(found, start=1))
        yield f"{dataset}@{revision}/{name}" if revision else f"{dataset}/{name}", Table(None, rows)


def _xlsx(content: Content, knows: Knows) -> Iterator[Table]:
    import openpyxl

    try:
        book = openpyxl.load_workbook(seekable(content), read_only=True, data_only=True)
    except Exception as error:  # openpyxl has no error class of its own: a part is missing, or wrong XML
        detail = f"an Office file that is not an XLSX table ({error})"
        yield _only(Rejected(content.name, "unknown-format", detail))
        return
    empty = True
    for sheet in book.worksheets:
        sheet.reset_dimensions()  # many exports declare a size that they do not have
        header, cells = _sheet_header(_sheet_cells(sheet), knows)
        if header:
            empty = False
            yield Table(header, _or_empty(content, _sheet_rows(header, cells, sheet.title)))
    book.close()
    if empty:
        yield _only(Rejected(content.name, "empty-file", "all sheets are empty"))


Cells = tuple[int, tuple[Any, ...]]
"""The number of a sheet's row, from 1, and its values."""


def _sheet_cells(sheet: Any) -> Iterator[Cells]:
    for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
        if any(cell is not None for cell in cells):
            yield number, cells


def _sheet_header(cells: Iterator[Cells], knows: Knows) -> tuple[list[str], Iterator[Cells]]:
    """The header, empty if the sheet is, and the cells below it."""
    passed: list[Cells] = []
    for number, values in cells:
        header = _names(values)
        if knows(header):
            return header, cells
        passed.append((number, values))
        if number >= HEADER_ROWS:
            break
    return (_names(passed[0][1]) if passed else []), itertools.chain(passed[1:], cells)


def _names(values: tuple[Any, ...]) -> list[str]:
    return ["" if value is None else str(value).strip() for value in values]


def _sheet_rows(header: list[str], cells: Iterator[Cells], sheet: str) -> Iterator[Row]:
    for number, values in cells:
        row = {column: value for column, value in zip(header, values, strict=False) if column}
        yield Place(f"{sheet}!{number}"), row


def _parquet(content: Content) -> Table:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(seekable(content))
    return Table(file.schema_arrow.names, _or_empty(content, _parquet_rows(file, content.name)))


def _parquet_rows(file: "pq.ParquetFile", name: str) -> Iterator[Row]:
    number = 0
    for batch in file.iter_batches(batch_size=64):
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError:  # not every writer checks its texts
            for row in range(len(batch)):
                yield from _damaged_row(batch.slice(row, 1), Place(number + row + 1), name)
        else:
            yield from ((Place(number + at), row) for at, row in enumerate(rows, start=1))
        number += len(batch)


def _damaged_row(row: "pa.RecordBatch", place: Place, name: str) -> Iterator[Row]:
    """A row whose texts may hold bytes that are not UTF-8."""
    import pyarrow as pa

    cells: dict[str, Any] = {}
    bad = 0
    as_bytes = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    for column, values in zip(row.schema.names, row.columns, strict=True):
        try:
            if values.type in as_bytes and values[0].is_valid:
                cells[column], found = decoded(values.cast(as_bytes[values.type])[0].as_py())
            else:
                cells[column], found = values[0].as_py(), 0
        except (Unreadable, UnicodeDecodeError):
            yield place, Rejected(place.in_file(name), "bad-encoding", f"column {column} is not UTF-8")
            return
        bad += found
    if bad:
        yield place, bad_bytes(place.in_file(name), bad)
    yield place, cells


def _or_empty(content: Content, rows: Iterator[Row]) -> Iterator[Row]:
    """The rows, or one error if there are none."""
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        yield Place(""), Rejected(content.name, "empty-file", "a header without rows")


def _only(rejected: Rejected) -> Table:
    return Table(None, iter([(Place(""), rejected)]))


def _load_dataset(dataset: str, revision: str | None, split: str | None) -> dict[str, Any]:
    """The rows of each split; UserError if the data set is not found."""
    import datasets

    streaming = not datasets.config.HF_HUB_OFFLINE or Path(dataset).is_dir()
    try:
        found = datasets.load_dataset(dataset, revision=revision, split=split, streaming=streaming)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        where = "" if streaming else " in the cache (the hub is offline)"
        raise UserError(
            f"data set {dataset}, revision {revision}, split {split or 'all'}: not found{where}: {error}"
        ) from None
    splits = dict(found) if split is None else {split: found}
    if revision and not streaming:
        _check_revision(dataset, revision, splits)
    return splits


def _check_revision(dataset: str, revision: str, splits: dict[str, Any]) -> None:
    """UserError if the cache returns another commit: offline, `datasets` takes the newest."""
    for found in splits.values():
        for file in found.cache_files:
            commit = Path(file["filename"]).parent.name
            if not (len(revision) >= 7 and commit.startswith(revision)):
                raise UserError(
                    f"data set {dataset}, revision {revision}: the newest in the cache is commit {commit}"
                    " (the hub is offline). Set `revision` to that commit, or download yours while online."
                )
