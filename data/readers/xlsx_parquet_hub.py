"""Tables that are no text: XLSX, Parquet, and data sets of the Hugging Face hub. Rows are streamed.

An XLSX file may have titles above its header: the header is the first row that names a column that is known.
Its rows are named `FILE#SHEET!ROW`, a Parquet file's `FILE#ROW`, a data set's `NAME@REVISION/SPLIT#ROW`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.errors import UserError
from data.readers.column_mapping import Options, is_known
from data.readers.json_csv import Row, read_objects, read_table
from data.record import Record, Rejected
from data.stream import Content, seekable, stream

HEADER_ROWS = 10
"""How far down a sheet its header is looked for."""


def read_xlsx(content: Content, options: Options) -> Iterator[list[Record] | Rejected]:
    """Yield once for each row under the header of each sheet; a sheet without a known header once."""
    import openpyxl

    try:
        book = openpyxl.load_workbook(seekable(content), read_only=True, data_only=True)
    except Exception as error:  # openpyxl names no errors of its own: a part may lack, or be wrong XML
        yield Rejected(content.name, "unknown-format", f"an Office file that is no XLSX table ({error})")
        return
    empty = True
    for sheet in book.worksheets:
        sheet.reset_dimensions()  # many exports declare a size that they do not have
        rows = _sheet_rows(sheet)
        header: list[str] = []
        for place, cells in rows:
            header = ["" if cell is None else str(cell).strip() for cell in cells]
            if is_known(header, options) or place >= HEADER_ROWS:
                break
        if any(header):
            empty = False
            yield from read_table(content, header, _rows_under(header, rows, sheet.title), options)
    book.close()
    if empty:
        yield Rejected(content.name, "empty-file", "no sheet holds anything")


def _sheet_rows(sheet: Any) -> Iterator[tuple[int, tuple[Any, ...]]]:
    for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
        if any(cell is not None for cell in cells):
            yield number, cells


def _rows_under(header: list[str], rows: Iterator[tuple[int, tuple[Any, ...]]], sheet: str) -> Iterator[Row]:
    for number, cells in rows:
        yield (
            f"{sheet}!{number}",
            {column: cell for column, cell in zip(header, cells, strict=False) if column},
        )


def read_parquet(content: Content, options: Options) -> Iterator[list[Record] | Rejected]:
    """Yield once for each row of a Parquet file."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(seekable(content))
    rows = (row for batch in file.iter_batches(batch_size=64) for row in batch.to_pylist())
    yield from read_table(content, file.schema_arrow.names, enumerate(rows, start=1), options)


def read_dataset(
    dataset: str, revision: str | None, split: str | None, options: Options
) -> Iterator[list[Record] | Rejected]:
    """Yield once for each row of a data set of the hub, or of a local folder that `datasets` can load.

    It is streamed; offline (HF_HUB_OFFLINE=1) it is read from the cache. Raises UserError where it is not
    there.
    """
    for name, rows in load_dataset(dataset, revision, split).items():
        place = f"{dataset}@{revision}/{name}" if revision else f"{dataset}/{name}"
        content = stream(place, iter(()))
        yield from read_objects(content, enumerate(rows, start=1), options)


def load_dataset(dataset: str, revision: str | None, split: str | None) -> dict[str, Any]:
    """The rows of each split of a data set of the hub, or of a local folder; UserError where it is absent."""
    import datasets

    streaming = not datasets.config.HF_HUB_OFFLINE or Path(dataset).is_dir()
    try:
        found = datasets.load_dataset(dataset, revision=revision, split=split, streaming=streaming)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        where = "in the cache (the hub is offline)" if not streaming else "there"
        raise UserError(
            f"data set {dataset}, revision {revision}, split {split or 'all'}: not {where}: {error}"
        ) from None
    splits = dict(found) if split is None else {split: found}
    if revision and not streaming:
        _check_revision(dataset, revision, splits)
    return splits


def _check_revision(dataset: str, revision: str, splits: dict[str, Any]) -> None:
    """UserError where the cache gives another commit: offline, `datasets` takes its newest."""
    for found in splits.values():
        for file in found.cache_files:
            commit = Path(file["filename"]).parent.name
            if not (len(revision) >= 7 and commit.startswith(revision)):
                raise UserError(
                    f"data set {dataset}, revision {revision}: the newest in the cache is commit {commit}"
                    " (the hub is offline). Name that commit, or fetch the other one while online."
                )
