"""What every reader reads from: a file, or a member of an archive, as a stream of bytes with a name.

Nothing is unpacked to disk and no stream is held in memory. The few formats that must jump about in a file
(ZIP inside another archive, XLSX, Parquet) get it by `seekable`, through a temporary file that is bounded.
A stream that cannot be read on raises `Unreadable`, which the caller turns into a rejection; what came before
it stays. UTF-16 is read as UTF-8; Chinese text in GB18030 that says so nowhere is recognised by `encoding`.
"""

import codecs
import errno
import io
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, cast

HEAD_BYTES = 1 << 16
"""How much of a file is looked at to recognise it."""

CHUNK_BYTES = 1 << 20
SPOOL_BYTES = 32 << 20
"""Up to this size a copy that must be seekable stays in memory; beyond, it is a temporary file."""

LINE_BYTES = 64 << 20
"""The longest line that is read; a longer one is passed over without holding it."""

TOO_LONG = f"longer than {LINE_BYTES >> 20} MiB"

COMPRESSED = re.compile(r"\.(?:gz|gzip|zst|zstd|bz2|xz)$", re.IGNORECASE)

# The hanzi and full-width marks that make up a tenth of any Chinese text, of table headers too. Korean and
# Japanese bytes also decode as GB18030, but to characters that are not these.
COMMON = set(
    "的一是在不了和有中为上个我以要到时用于与及其由种该所述之从方法或对可本请号公开发明人题摘专利，。、；"
)


class Unreadable(Exception):
    """A stream that ends here for a reason that has a name."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def is_of_the_machine(error: Exception) -> bool:
    """Whether an error is the disk's, the system's or a missing package's, not one of the content.

    EINVAL is the content's: a broken archive makes its reader seek to before the start.
    """
    if isinstance(error, OSError):
        return error.errno not in (None, errno.EINVAL)
    return isinstance(error, ImportError)


class FileSplit(NamedTuple):
    """A part of a large file (`data.readers.file_splits`): of JSON lines by bytes, of a ZIP archive by
    members."""

    first: int
    stop: int
    line: int | None = None
    """The number of the line that the part begins with; None where `first` and `stop` are members."""


@dataclass
class Content:
    """A file, a part of one, or a member of an archive; it is read once, from its start."""

    name: str
    """What a record's `source` says: `a.xml`, `a.zip/member.xml`."""
    file: io.BufferedReader
    part: FileSplit | None = None

    def head(self) -> bytes:
        """The first bytes, which are not consumed."""
        return self.file.peek(HEAD_BYTES)[:HEAD_BYTES]

    @property
    def stem(self) -> str:
        """The file's own name without suffixes for type and compression: `a` of `b.zip/a.csv.gz`."""
        return PurePosixPath(COMPRESSED.sub("", self.name)).stem

    @property
    def suffix(self) -> str:
        """The suffix that tells the type, in lower case: `.csv` of `a.CSV.gz`."""
        return PurePosixPath(COMPRESSED.sub("", self.name)).suffix.lower()


def open_file(path: Path, part: FileSplit | None = None) -> Content:
    """A file on disk, or a part of it; the caller closes `file`."""
    if part and part.line:
        return Content(str(path), stream(str(path), _range(path, part)).file, part)
    return Content(str(path), io.BufferedReader(path.open("rb", buffering=0), CHUNK_BYTES), part)


def _range(path: Path, part: FileSplit) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        file.seek(part.first)
        while chunk := file.read(min(CHUNK_BYTES, part.stop - file.tell())):
            yield chunk


def stream(name: str, chunks: Iterator[bytes]) -> Content:
    """What an iterator of chunks gives, as a file that cannot jump."""
    return Content(name, io.BufferedReader(_Chunks(chunks), CHUNK_BYTES))


class _Chunks(io.RawIOBase):
    """An iterator of chunks as a raw stream. An exception comes after all the bytes that came before it."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self._position = 0
        self._error: Exception | None = None

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the whole buffer unless the stream ends, so that `peek` shows a whole head."""
        filled = 0
        while filled < len(buffer) and self._error is None:
            if not self._rest:
                try:
                    self._rest = next(self._chunks, b"")
                except Exception as error:  # raised below, once what came before it is read
                    self._error = error
                if not self._rest:
                    break
            part = self._rest[: len(buffer) - filled]
            buffer[filled : filled + len(part)] = part
            self._rest = self._rest[len(part) :]
            filled += len(part)
        if not filled and self._error is not None:
            raise self._error
        self._position += filled
        return filled


def position(file: io.BufferedReader) -> int:
    """How many bytes were taken from what lies under a buffered stream."""
    return file.raw.tell()


def seekable(content: Content) -> io.BufferedReader:
    """The same bytes as a file that can jump: the file itself, or a copy that the system removes."""
    if content.file.seekable():
        return content.file
    data = content.file.read(SPOOL_BYTES)
    if len(data) < SPOOL_BYTES:
        return io.BufferedReader(cast(io.RawIOBase, io.BytesIO(data)))
    copy = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as its reader
    copy.write(data)
    shutil.copyfileobj(content.file, copy, CHUNK_BYTES)
    copy.seek(0)
    return cast(io.BufferedReader, copy)


# Text


class Line(NamedTuple):
    """One line of a file."""

    number: int
    offset: int
    """Where it starts, in bytes."""
    data: bytes | None
    """With its line end; None where it is longer than LINE_BYTES."""


def lines(content: Content) -> Iterator[Line]:
    """The lines of a file or a part, numbered and placed as in the whole file, from 1 and 0; memory holds
    one, and never a longer one than LINE_BYTES."""
    file = content.file
    offset, number = (content.part.first, (content.part.line or 1) - 1) if content.part else (0, 0)
    while data := file.readline(LINE_BYTES):
        number += 1
        length = len(data)
        if length < LINE_BYTES or data.endswith(b"\n"):
            yield Line(number, offset, data)
        else:
            while data and not data.endswith(b"\n"):
                data = file.readline(CHUNK_BYTES)
                length += len(data)
            yield Line(number, offset, None)
        offset += length


def as_utf8(content: Content) -> Content:
    """The content itself, or, where a byte order mark says UTF-16, its text in UTF-8.

    Offsets into such a file are those of its UTF-8 form. Half a surrogate pair stays one, so that the reader
    of its row or document rejects it there.
    """
    mark = content.head()[:2]
    if content.part or mark not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return content
    decoder = codecs.getincrementaldecoder("utf-16")("surrogatepass")

    def chunks() -> Iterator[bytes]:
        while chunk := content.file.read1(CHUNK_BYTES):
            if text := decoder.decode(chunk):
                yield text.encode("utf-8", "surrogatepass")
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            raise Unreadable("bad-encoding", "the UTF-16 text ends in the middle of a character") from None

    return stream(content.name, chunks())


def decoded(data: bytes, offset: int = 0) -> str:
    """UTF-8 as text; Unreadable names the first byte that is not, counted from `offset`."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = f"byte {offset + error.start} of the file is not UTF-8"
        raise Unreadable("bad-encoding", place) from None


def encoding(head: bytes) -> str:
    """`gb18030` where a head is not UTF-8, decodes strictly as GB18030 and reads as Chinese; else `utf-8`."""
    if _decode(head, "utf-8") is not None:
        return "utf-8"
    foreign = [character for character in _decode(head, "gb18030") or "" if character > "\x7f"]
    common = sum(character in COMMON for character in foreign)
    return "gb18030" if len(foreign) >= 4 and common >= len(foreign) / 10 else "utf-8"


def _decode(head: bytes, name: str) -> str | None:
    """A head as text, a character that it cuts at its end left out; None where it is not in that encoding."""
    try:
        return codecs.getincrementaldecoder(name)().decode(head)
    except UnicodeDecodeError:
        return None
