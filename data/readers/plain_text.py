"""Plain text: one document per file, or per paragraph (between blank lines)."""

from collections.abc import Iterator

from data.readers.cell_values import records
from data.readers.column_mapping import Options
from data.record import Record, Rejected, bad_bytes
from data.stream import LINE_BYTES, Content, Line, Unreadable, decoded, encoding, lines

FIELDS = {"description": ["text"]}


def read_text(content: Content, options: Options) -> Iterator[list[Record] | Rejected]:
    """The description is the file's text; with `layout: paragraphs`, one record per paragraph.

    Its id is the file's name, the line of the paragraph if there are several, and a digest. A text longer
    than LINE_BYTES is rejected.
    """
    encoded = encoding(content.head())
    if options.layout == "documents":
        data = content.file.read(LINE_BYTES + 1)
        whole = Line(0, 0, data if len(data) <= LINE_BYTES else None)
        yield from _document(whole, encoded, content.name, content.stem, options)
        return
    for part in _paragraphs(content):
        source, name = f"{content.name}#{part.number}", f"{content.stem}-{part.number:06d}"
        yield from _document(part, encoded, source, name, options)


def _paragraphs(content: Content) -> Iterator[Line]:
    """Runs of non-blank lines, each with its first line's number and offset."""
    run: list[bytes] = []
    start = Line(0, 0, None)
    size = 0
    for line in lines(content):
        blank = line.data is not None and not line.data.strip()
        if blank and size:
            yield start._replace(data=b"".join(run) if size <= LINE_BYTES else None)
            run, size = [], 0
        elif not blank:
            start = start if size else line
            size += LINE_BYTES + 1 if line.data is None else len(line.data)
            if size <= LINE_BYTES:  # nothing of a longer one is kept
                run.append(line.data or b"")
    if size:
        yield start._replace(data=b"".join(run) if size <= LINE_BYTES else None)


def _document(
    part: Line, encoded: str, source: str, name: str, options: Options
) -> Iterator[list[Record] | Rejected]:
    if part.data is None:
        yield Rejected(source, "too-long", f"the text is longer than {LINE_BYTES >> 20} MiB")
        return
    try:
        text, bad = decoded(part.data, part.offset, encoded)
    except Unreadable as error:
        yield Rejected(source, error.reason, error.detail)
        return
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").strip()
    yield records({"text": text}, FIELDS, options, source, name)
    if bad:
        yield bad_bytes(source, bad)
