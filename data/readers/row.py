"""A row of a table, and its place in the file."""

from typing import Any, NamedTuple

from data.record import Rejected


class Place(NamedTuple):
    """Where a row is in its file."""

    number: int | str
    """The line of JSON lines or CSV (from 1), the row of Parquet, `SHEET!ROW`, the item of a JSON list
    (`LINE.ITEM` if the list is one line), or "" for a file that is one row."""
    line: int | None = None
    """Of the items of a JSON list over several lines: the line on which the item begins."""

    def in_file(self, name: str) -> str:
        """`FILE#NUMBER`, or the file alone."""
        return f"{name}#{self.number}" if self.number != "" else name


Row = tuple[Place, dict[str, Any] | Rejected]
"""A row's cells by column, or why it has none."""
