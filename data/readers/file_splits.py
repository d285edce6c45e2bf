"""Splits of a large file that workers read in parallel: JSON lines and ZIP archives.

A split begins and ends at a document: JSON lines are split after a line end, archives between members. So the
splits of a file give the same records, with the same sources, as the whole file. Other files are not split,
whatever their size; they are streamed.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from data.readers.archives import is_office_document, is_zip, zip_files
from data.readers.column_mapping import Options
from data.readers.formats import format_of
from data.readers.json_rows import is_lines
from data.stream import CHUNK_BYTES, FileSplit, as_utf8, open_file


def parts(path: Path, options: Options, part_bytes: int) -> list[FileSplit | None]:
    """The splits of a file, in order, each of about `part_bytes` on disk; [None] if it is not split."""
    if path.stat().st_size <= part_bytes:
        return [None]
    found: list[FileSplit] = []
    content = open_file(path)
    with content.file:
        head = content.head()
        if is_zip(head):
            found = list(_members(path, part_bytes))
        elif (
            as_utf8(content, options.encoding) is content
            and format_of(content, options.knows) == "JSON"
            and is_lines(head)
        ):
            found = list(_lines(content.file, part_bytes))
    return [*found] if len(found) > 1 else [None]


def _members(path: Path, part_bytes: int) -> Iterator[FileSplit]:
    try:
        with zipfile.ZipFile(path) as archive:
            files = zip_files(archive)
    except Exception:  # the libraries have no common class; the reader of the archive reports the error
        return
    if is_office_document(files):
        return
    first = size = 0
    for number, info in enumerate(files):
        if size and size + info.compress_size > part_bytes:
            yield FileSplit(first, number)
            first, size = number, 0
        size += info.compress_size
    yield FileSplit(first, len(files))


def _lines(file: IO[bytes], part_bytes: int) -> Iterator[FileSplit]:
    first, line = 0, 1
    while True:
        number, left = line, part_bytes
        while left > 0 and (chunk := file.read(min(left, CHUNK_BYTES))):
            number += chunk.count(b"\n")
            left -= len(chunk)
        while (rest := file.readline(CHUNK_BYTES)) and not rest.endswith(b"\n"):
            pass  # to the end of a line, however long
        if file.tell() == first:
            return
        yield FileSplit(first, file.tell(), line)
        first, line = file.tell(), number + 1 if rest else number
