"""Archives and compressed files, read in place: nothing is unpacked to disk.

`members` takes a file and yields its contents: the file itself or, by its first bytes, the members of a ZIP
or TAR archive and the content of gzip, Zstandard, bzip2 or xz, also nested (`a.tar.gz` with `b.zip` in it). A
member is named by its path inside the archive: `a.zip/member.xml`.

A member that must not or cannot be read is a `Rejected` with a reason, and the next one is read:
`unsafe-name` (an absolute path, or `..`), `encrypted`, `archive-link`, `nested-archive` (deeper than DEPTH
layers). A stream that grows beyond `Limits` raises `Unreadable("archive-bomb")` while it is read, one that is
cut short `truncated-archive`, one with errors `damaged-archive`.
"""

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, NamedTuple, Self, cast

from data.record import Noted, Rejected
from data.stream import CHUNK_BYTES, Content, Unreadable, is_of_the_machine, position, seekable, stream

ATTACHED = re.compile(
    r"\.(?:tiff?|png|jpe?g|jp2|gif|bmp|webp|svg|emf|wmf|cdx|mol|chem|sdf|nb|dtd|ent|xsd|xslt?|css|js|md5|sha\d+)$",
    re.IGNORECASE,
)
"""Names of drawings, of structures and formulas, and of what belongs to the XML beside them."""
DRAWING = re.compile(rb"II\*\0|MM\0\*|\x89PNG|\xff\xd8\xff|GIF8|BM.{4}\0{4}|VjCD0100", re.DOTALL)
"""First bytes of drawings: TIFF, PNG, JPEG, GIF, BMP and ChemDraw."""
DEPTH = 4
"""Layers of archives and compression, as in `a.tar.gz` (two) with a `b.zip` of `c.xml.gz` (four)."""

STARTS = {
    "zip": rb"PK(?:\x03\x04|\x05\x06)",
    "gzip": rb"\x1f\x8b\x08",
    "zstd": rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",
    "bzip2": rb"BZh[1-9]",
    "xz": rb"\xfd7zXZ\x00",
    "tar": rb"(?s:.{257})ustar",
}
"""First bytes: ZIP's and TAR's own, RFC 1952, RFC 8878, and those of bzip2 and xz."""


class Limits(NamedTuple):
    """The limits to the size of a stream; patents compress to a tenth, hardly ever to a fiftieth."""

    ratio: int = 100
    """Maximum ratio to its compressed size, applied after the first `free_bytes`."""
    free_bytes: int = 64 << 20
    stream_bytes: int = 64 << 30
    """Maximum size of one member, whatever its ratio."""


def members(content: Content, limits: Limits | None = None, depth: int = 0) -> Iterator[Content | Rejected]:
    """The contents of a file; each must be read before the next one."""
    try:
        head = content.head()
        kind = next((kind for kind, start in STARTS.items() if re.match(start, head)), None)
        if kind is None:
            yield content
        elif depth == DEPTH:
            yield Rejected(content.name, "nested-archive", f"more than {DEPTH} nested archives")
        elif kind == "zip":
            yield from _zip_members(content, limits or Limits(), depth)
        elif kind == "tar":
            yield from _tar_members(content, limits or Limits(), depth)
        else:
            file = content.file
            plain = _guarded(lambda: _decompress(kind, file), lambda: position(file), limits or Limits())
            yield from members(stream(content.name, plain), limits, depth + 1)
    except Unreadable as error:
        yield Rejected(content.name, error.reason, error.detail)


def attachment(content: Content, *, inside: bool) -> Noted | None:
    """Why a file is no document, if it is a drawing or the like by its name or first bytes. A PDF belongs to
    the documents `inside` an archive beside it; elsewhere it is a document that cannot be read."""
    head = content.head()
    if ATTACHED.search(content.name) or DRAWING.match(head) or (inside and head.startswith(b"%PDF")):
        return Noted(content.name, "attachment", "a drawing, structure, style or schema")
    return None


def _zip_members(content: Content, limits: Limits, depth: int) -> Iterator[Content | Rejected]:
    file = seekable(content)
    with _named_errors():
        archive = zipfile.ZipFile(file)
    files = zip_files(archive)
    if not files:
        yield Rejected(content.name, "empty-file", "the archive contains no file")
    if is_office_document(files):
        packed = sum(info.compress_size for info in files)
        _check(sum(info.file_size for info in files), packed, limits)
        file.seek(0)
        yield Content(content.name, file)
        return
    for info in files[content.part.first : content.part.stop] if content.part else files:
        name = f"{content.name}/{info.filename}"
        if _leads_outside(info.filename):
            yield Rejected(name, "unsafe-name", "an absolute path, or a path with `..`")
        elif info.flag_bits & 1:
            yield Rejected(name, "encrypted", "the member is encrypted; decrypt it first")
        else:
            plain = _guarded(partial(archive.open, info), partial(getattr, info, "compress_size"), limits)
            yield from members(stream(name, plain), limits, depth + 1)


def is_zip(head: bytes) -> bool:
    """Whether a file is a ZIP archive, by its first bytes."""
    return re.match(STARTS["zip"], head) is not None


def zip_files(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The members that are files, in the order of the archive's directory."""
    return [info for info in archive.infolist() if not info.is_dir()]


def is_office_document(files: list[zipfile.ZipInfo]) -> bool:
    """Whether the members are one document, such as an XLSX file."""
    return any(info.filename == "[Content_Types].xml" for info in files)


def _tar_members(content: Content, limits: Limits, depth: int) -> Iterator[Content | Rejected]:
    with _named_errors():
        archive = tarfile.open(fileobj=content.file, mode="r|", tarinfo=_Header)  # noqa: SIM115  # the file is its caller's
    while True:
        with _named_errors():
            info = archive.next()
        if info is None:
            return
        name = f"{content.name}/{info.name}"
        if info.isdir():
            continue
        if _leads_outside(info.name):
            yield Rejected(name, "unsafe-name", "an absolute path, or a path with `..`")
        elif not info.isreg() or info.issparse():
            yield Rejected(name, "archive-link", "a link, a device or a sparse file; these are not read")
        else:
            plain = _guarded(partial(archive.extractfile, info), partial(getattr, info, "size"), limits)
            yield from members(stream(name, plain), limits, depth + 1)
        cast(Any, archive).members.clear()  # otherwise it keeps every header


class _Header(tarfile.TarInfo):
    """A header of TAR; tarfile itself silently treats a broken one as the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """As in TarInfo; only the block of zeros that marks the end may be an invalid header."""
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            if len(buf) < tarfile.BLOCKSIZE:
                raise Unreadable("truncated-archive", f"ends too early: {error}") from None
            raise Unreadable("damaged-archive", f"a member's header is broken: {error}") from None


def _decompress(kind: str, file: io.BufferedReader) -> IO[bytes]:
    match kind:
        case "gzip":
            return cast(IO[bytes], gzip.GzipFile(fileobj=file))
        case "bzip2":
            return bz2.BZ2File(file)
        case "xz":
            return lzma.LZMAFile(file)
        case _:
            import pyarrow as pa

            # zstandard's reader accepts a truncated frame as complete; Arrow's does not.
            return cast(IO[bytes], pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd"))


def _guarded(
    open_stream: Callable[[], IO[bytes] | None], packed: Callable[[], int], limits: Limits
) -> Iterator[bytes]:
    """A stream's chunks, until it grows beyond the limits; `packed` returns its compressed bytes so far."""
    size = 0
    with _named_errors():
        file = open_stream()
        assert file is not None
        while chunk := file.read(CHUNK_BYTES // 4):
            size += len(chunk)
            _check(size, packed(), limits)
            yield chunk


def _check(size: int, packed: int, limits: Limits) -> None:
    if size > limits.stream_bytes:
        raise Unreadable("archive-bomb", f"more than {limits.stream_bytes:,} bytes from one member")
    if size > max(limits.free_bytes, limits.ratio * packed):
        raise Unreadable(
            "archive-bomb", f"more than {limits.ratio} times its compressed size of {packed:,} bytes"
        )


def _leads_outside(name: str) -> bool:
    return ".." in re.split(r"[/\\]", name) or re.match(r"[/\\]|[A-Za-z]:", name) is not None


@contextmanager
def _named_errors() -> Iterator[None]:
    """Turn what the libraries raise for a broken archive into Unreadable. Errors of the disk stay
    unchanged."""
    try:
        yield
    except Unreadable:
        raise  # from the layer below
    except (EOFError, tarfile.ReadError) as error:
        raise Unreadable("truncated-archive", f"ends too early: {error}") from None
    except Exception as error:  # zlib, lzma, zipfile, struct …: the libraries have no common class
        if is_of_the_machine(error):
            raise
        reason = "truncated-archive" if "Truncated" in str(error) else "damaged-archive"
        raise Unreadable(reason, f"{type(error).__name__}: {error}") from None
