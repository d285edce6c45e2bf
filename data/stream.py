"""The input of every reader: a file, or a member of an archive, as a stream of bytes with a name.

Nothing is unpacked to disk and no stream is held in memory. The few formats that need random access (ZIP
inside another archive, XLSX, Parquet) get it from `seekable`, through a temporary file of limited size. A
stream that cannot be read any further raises `Unreadable`, which the caller turns into a rejection; what was
read before stays. UTF-16 is read as UTF-8; `encoding` recognises Chinese text in undeclared GB18030.
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
"""How much of a file is read to recognise it."""

CHUNK_BYTES = 1 << 20
SPOOL_BYTES = 32 << 20
"""A seekable copy stays in memory up to this size; a larger one is a temporary file."""

LINE_BYTES = 64 << 20
"""The longest line that is read; a longer one is skipped without keeping it in memory."""

TOO_LONG = f"longer than {LINE_BYTES >> 20} MiB"

COMPRESSED = re.compile(r"\.(?:gz|gzip|zst|zstd|bz2|xz)$", re.IGNORECASE)

COMMON = {
    "gb18030": "的一是在不了和有中为上个我以要到时用于与及其由种该所述之从方法或对可本请号公开发明人题摘专利"
    "，。、；",
    "cp949": "이의는을에하다가고로한지기도사리자은를서부시어수있상인정제전되발명번호공개등록일출원요약청구항",
    "cp932": "のにをはがとでしてたるれいなっもこからすあ、。さ公開番号発明称要約請求項出願日",
    "big5": "的一是在不了和有中為上個我以要到時用於與及其由種該所述之從方法或對可本請號公開發明人題摘專利"
    "，。、；",
}
"""By encoding, the characters that make up a tenth of any text in it, including the headers of tables. Bytes
of one also decode as others, but to other characters."""


DECLARED = re.compile(r"""(<\?xml[^>]{1,60}?encoding\s*=\s*)(["'])[\w.:-]+\2""", re.IGNORECASE)


REPLACEMENT = "\ufffd".encode()
LONE_SURROGATE = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")
"""How `as_utf8` passes on a byte that cannot be decoded: one character, as it was one byte."""


class Unreadable(Exception):
    """A stream that cannot be read any further, for a reason with a name."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def is_of_the_machine(error: Exception) -> bool:
    """Whether an error comes from the disk, the system or a missing package, not from the content.

    EINVAL comes from the content: a broken archive makes its reader seek to before the start.
    """
    if isinstance(error, OSError):
        return error.errno not in (None, errno.EINVAL)
    return isinstance(error, ImportError)


class FileSplit(NamedTuple):
    """A range of a large file (`data.readers.file_splits`): bytes of JSON lines, members of a ZIP archive."""

    first: int
    stop: int
    line: int | None = None
    """The number of its first line; None if `first` and `stop` count members."""


@dataclass
class Content:
    """A file, a split of one, or a member of an archive; it is read once, from its start."""

    name: str
    """The `source` of its records: `a.xml`, `a.zip/member.xml`."""
    file: io.BufferedReader
    part: FileSplit | None = None

    def head(self) -> bytes:
        """The first bytes, without consuming them."""
        return self.file.peek(HEAD_BYTES)[:HEAD_BYTES]

    @property
    def stem(self) -> str:
        """The file's own name without suffixes for type and compression: `a` of `b.zip/a.csv.gz`."""
        return PurePosixPath(COMPRESSED.sub("", self.name)).stem

    @property
    def suffix(self) -> str:
        """The suffix of the type, in lower case: `.csv` of `a.CSV.gz`."""
        return PurePosixPath(COMPRESSED.sub("", self.name)).suffix.lower()


def open_file(path: Path, part: FileSplit | None = None) -> Content:
    """A file on disk, or a split of it; the caller closes `file`."""
    if part and part.line:
        return Content(str(path), stream(str(path), _range(path, part)).file, part)
    return Content(str(path), io.BufferedReader(path.open("rb", buffering=0), CHUNK_BYTES), part)


def _range(path: Path, part: FileSplit) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        file.seek(part.first)
        while chunk := file.read(min(CHUNK_BYTES, part.stop - file.tell())):
            yield chunk


def stream(name: str, chunks: Iterator[bytes]) -> Content:
    """An iterator of chunks as a file that is not seekable."""
    return Content(name, io.BufferedReader(_Chunks(chunks), CHUNK_BYTES))


class _Chunks(io.RawIOBase):
    """An iterator of chunks as a raw stream. An exception is raised after all the bytes before it are
    read."""

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
                except Exception as error:  # raised below, once the bytes before it are read
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
    """The number of bytes read from the raw stream of a buffered one."""
    return file.raw.tell()


def seekable(content: Content) -> io.BufferedReader:
    """The same bytes as a seekable file: the file itself, or a temporary copy."""
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
    """Including its line end; None if it is longer than LINE_BYTES."""


def lines(content: Content) -> Iterator[Line]:
    """The lines of a file or a split, with their number (from 1) and offset (from 0) in the whole file;
    memory holds one line, and at most LINE_BYTES of it."""
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


def as_utf8(content: Content, given: str | None = None) -> Content:
    """The content itself or, if it has a byte order mark of UTF-16, or its encoding is `given`, its text in
    UTF-8.

    Offsets into such a file are those of its UTF-8 form. A byte that cannot be decoded becomes a lone
    surrogate, which `decoded` counts as a bad byte; an XML declaration is made to say UTF-8.
    """
    is_utf16 = content.head()[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    if content.part or not (is_utf16 or given):
        return content
    decoder = codecs.getincrementaldecoder("utf-16" if is_utf16 else given or "")(
        "surrogatepass" if is_utf16 else "surrogateescape"
    )

    def chunks() -> Iterator[bytes]:
        while chunk := content.file.read1(CHUNK_BYTES):
            if text := decoder.decode(chunk):
                if not is_utf16:
                    text = DECLARED.sub(r"\1\2utf-8\2", text)
                yield text.encode("utf-8", "surrogatepass")
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            raise Unreadable("bad-encoding", "the text ends in the middle of a character") from None

    return stream(content.name, chunks())


LATIN_1_LETTER = re.compile(rb"[A-Za-z][\xc0-\xff](?![\x80-\xff])|(?<![\x80-\xff])[\xc0-\xff](?=[a-z])")


def decoded(data: bytes, offset: int = 0, name: str = "utf-8") -> tuple[str, int]:
    """A document, or a row, as text, and the number of bad bytes in it, each of which became U+FFFD.

    Unreadable, with the place of the first counted from `offset`, if they are too many to be few bad bytes
    in the right encoding, or if two or more are letters of Latin-1 and no others are outside ASCII: a short
    German or French text.
    """
    try:
        return data.decode(name), 0
    except UnicodeDecodeError as error:
        whole = LONE_SURROGATE.sub(b"\xff", data) if name == "utf-8" else data
        text = whole.decode(name, "replace")
        good = whole.decode(name, "ignore")
        bad = text.count("\ufffd") - good.count("\ufffd")
        if are_few(bad, len(whole)) and not (good.isascii() and len(LATIN_1_LETTER.findall(data)) > 1):
            return text, bad
        place = f"byte {offset + error.start} of the file is not {name.upper()}"
        raise Unreadable("bad-encoding", place) from None


def are_few(bad: int, length: int) -> bool:
    """Whether a text of `length` bytes with so many bad ones is damaged, and not in another encoding: at most
    one in a hundred is bad, and at most five, or one in ten thousand of a long text.

    In another encoding all letters outside ASCII are bad: some 2% of a German or French text, all of a
    Chinese one.
    """
    return 100 * bad <= length and bad <= max(5, length // 10_000)


def encoding(head: bytes) -> str:
    """The encoding of a head: `utf-8`, or if it is not, the one of COMMON in which it decodes strictly and
    reads as text of its language; `utf-8` if it does in none."""
    if _decode(head, "utf-8") is not None:
        return "utf-8"

    def share(name: str) -> float:
        foreign = [character for character in _decode(head, name) or "" if character > "\x7f"]
        return sum(c in COMMON[name] for c in foreign) / len(foreign) if len(foreign) >= 4 else 0

    best = max(COMMON, key=share)
    return best if share(best) >= 0.1 else "utf-8"


def _decode(head: bytes, name: str) -> str | None:
    """A head as text, without an incomplete character at its end; None if it is not in that encoding."""
    try:
        return codecs.getincrementaldecoder(name)().decode(head)
    except UnicodeDecodeError:
        return None
