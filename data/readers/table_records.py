"""Rows of tables as patent records: `column_mapping` maps columns to fields, `cell_values` converts cells.

    rows ──column_mapping──▶ fields ──cell_values──▶ records

A row is a document. A row without an id gets one from its file, its place and a digest of its content. An
object of JSON with one list of objects, as a search service answers, is the rows of that list.
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data.readers import lens
from data.readers.cell_values import records
from data.readers.column_mapping import Fields, Options, is_known, map_columns
from data.readers.row import Place, Row
from data.readers.rows import dataset_tables, tables
from data.readers.table_join import KEYS, Fragment, order_of
from data.record import Noted, Record, Rejected, bad_bytes
from data.stream import Content, Unreadable, are_few, stream

CLAIM_TABLE = frozenset(("claim_sequence", "claim_text"))
"""Columns of a table with a claim a row, beside one of KEYS."""

CLAIM_NUMBERS = ("claim_number", "claim_sequence")

HALF_PAIR = re.compile("[\ud800-\udfff]")
"""JSON can write one, and UTF-8 cannot."""

SAMPLE_ROWS = 20
"""Rows in which the longest text column is searched if no column name is known."""


def read_table(content: Content, container: str, options: Options) -> Iterator[list[Record] | Rejected]:
    """Yield once for each row of a file; once for a table whose header cannot be used."""
    for table in tables(content, container, options.knows):
        if container == "JSON":
            yield from _own_columns(content, _listed(table.rows, options), options)
        elif table.columns is None:
            yield from _own_columns(content, table.rows, options)
        else:
            yield from _under_header(content, table.columns, table.rows, options)


def read_dataset(
    dataset: str, revision: str | None, split: str | None, options: Options
) -> Iterator[list[Record] | Rejected]:
    """Yield once for each row of a data set of the hub, or of a local folder that `datasets` can load."""
    for name, table in dataset_tables(dataset, revision, split):
        yield from _own_columns(stream(name, iter(())), table.rows, options)


def _listed(rows: Iterator[Row], options: Options) -> Iterator[Row]:
    """The rows, and instead of an object around one list of objects the rows of that list."""
    for place, row in rows:
        if isinstance(row, Rejected):
            yield place, row
            continue
        found = [] if is_known(row, options) else _lists(row)
        if len(found) == 1 and (place.number == "" or isinstance(place.number, int)):
            prefix = f"{place.number}." if place.number else ""
            yield from ((Place(f"{prefix}{number}"), item) for number, item in enumerate(found[0], start=1))
        elif len(found) == 1 and any(str(place.number).startswith(f"{name}.") for name in row):
            yield place, found[0][0]  # one item of a document that was too long to be read whole
        else:
            yield place, row


def _lists(row: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """The values that are lists of objects."""
    lists = (value for value in row.values() if isinstance(value, list) and value)
    return [items for items in lists if all(isinstance(item, dict) for item in items)]


def _own_columns(
    content: Content, rows: Iterator[Row], options: Options
) -> Iterator[list[Record] | Rejected]:
    """Rows that each bring their own columns, as JSON lines do."""
    rows, sample = _sample(rows)
    known: dict[tuple[str, ...], Fields | Rejected] = {}
    for place, row in rows:
        if isinstance(row, Rejected):
            yield row
            continue
        names = tuple(row)
        source = place.in_file(content.name)
        if lens.KEY in row and "biblio" in row:
            yield lens.records(row, source)
            continue
        if names not in known and len(known) < 10_000:
            alike = [item for item in sample if names == tuple(item)]
            known[names] = _noted(names, map_columns(names, options, source, alike), options)
            yield from _guess(known[names], options, source)
        fields = known.get(names) or map_columns(names, options, source)
        if isinstance(fields, Rejected):
            yield Rejected(source, fields.reason, fields.detail)
        else:
            outcome = records(row, fields, options, source, _name(content, place))
            if isinstance(outcome, Rejected) and outcome.reason == "bad-encoding":
                whole, bad = _whole_characters(row)
                if bad:
                    outcome = records(whole, fields, options, source, _name(content, place))
                    yield bad_bytes(source, bad)
            yield outcome


def _whole_characters(row: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
    """The row with U+FFFD for each half of a surrogate pair, and their number; 0 and the row itself if they
    are too many."""
    written, bad = HALF_PAIR.subn("\ufffd", json.dumps(row, ensure_ascii=False))
    return (json.loads(written), bad) if are_few(bad, len(written)) else (row, 0)


def _under_header(
    content: Content, header: Sequence[str], rows: Iterator[Row], options: Options
) -> Iterator[list[Record] | Rejected]:
    """Rows under one header; if it cannot be used, the whole table is one rejected document."""
    rows, sample = _sample(rows)
    fields = _noted(header, map_columns(header, options, content.name, sample), options)
    if isinstance(fields, Rejected):
        yield fields
        return
    yield from _guess(fields, options, content.name)
    order = order_of(header)
    for place, row in _grouped(rows, header, options):
        if isinstance(row, Rejected):
            yield row
            continue
        found = records(row, fields, options, place.in_file(content.name), _name(content, place))
        yield found if order is None or isinstance(found, Rejected) else Fragment(found, order)


def _grouped(rows: Iterator[Row], header: Sequence[str], options: Options) -> Iterator[Row]:
    """The rows; of a table of claims, with a claim a row (PatentsView's `g_claims`), one for each patent,
    with a list of its claims. The rows of a patent follow each other."""
    key = next((name for name in KEYS if name in header), None)
    if key is None or not set(header) >= CLAIM_TABLE:
        yield from rows
        return
    options.notes.update({name: "claim_numbers" for name in CLAIM_NUMBERS if name in header})
    place, patent = Place(""), dict[str, Any]()
    for at, row in rows:
        if isinstance(row, Rejected):
            yield at, row
        elif patent and row[key] == patent[key]:
            patent["claim_text"].append(_claim(row))
        else:
            if patent:
                yield place, patent
            place, patent = at, {**row, "claim_text": [_claim(row)]}
    if patent:
        yield place, patent


def _claim(row: Mapping[str, Any]) -> dict[str, Any]:
    number = row.get("claim_number") or int(row["claim_sequence"]) + 1
    return {"claim_number": str(number), "text": row["claim_text"]}


def _noted(names: Sequence[str], fields: Fields | Rejected, options: Options) -> Fields | Rejected:
    found = {} if isinstance(fields, Rejected) else {name: f for f, taken in fields.items() for name in taken}
    found = {name: f"{f} (guessed)" if name in options.guessed else f for name, f in found.items()}
    options.notes.update({name: found.get(name) for name in names})
    return fields


def _guess(fields: Fields | Rejected, options: Options, source: str) -> Iterator[Noted]:
    """That a column was taken for the text."""
    taken = () if isinstance(fields, Rejected) else fields.get("description", ())
    yield from (Noted(source, "guessed-column", name) for name in taken if name in options.guessed)


def _sample(rows: Iterator[Row]) -> tuple[Iterator[Row], list[Mapping[str, Any]]]:
    """The rows unchanged, and the cells of some of the first."""
    first: list[Row] = []
    try:
        first.extend(itertools.islice(rows, SAMPLE_ROWS))
    except Unreadable as error:  # a file that is cut off within its first rows: it ends after them
        rows = _ending(error)
    return itertools.chain(first, rows), [row for _, row in first if not isinstance(row, Rejected)]


def _ending(error: Unreadable) -> Iterator[Row]:
    yield from ()
    raise error


def _name(content: Content, place: Place) -> str:
    """What the id of a row without an id begins with."""
    number = f"{place.number:06d}" if isinstance(place.number, int) else place.number
    return "-".join(filter(None, (content.stem, number)))
