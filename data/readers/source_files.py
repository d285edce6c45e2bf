"""The files of sources: listed in order, and hashed as the inputs of a step."""

from collections.abc import Sequence
from pathlib import Path

from core.errors import UserError
from core.files import files_below
from core.provenance import manifest
from data.readers.source import Source


def list_files(path: Path) -> list[Path]:
    """The file itself, or a folder's files (core/files.py), all of which can be read."""
    if not path.exists():
        raise UserError(f"source {path} does not exist. Correct `path`, or create it.")
    files = files_below(path)
    if not files:
        raise UserError(f"source {path} is an empty folder. Put files there, or remove it from `sources`.")
    for file in files:
        if file.exists() and not file.is_file():  # reading it would block forever
            raise UserError(f"source {path}: {file} is a pipe, a socket or a device, not a file. Remove it.")
        try:
            str(file).encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(f"source {path}: the file name {str(file)!r} is not UTF-8. Rename it.") from None
    return files


def input_hashes(sources: Sequence[Source]) -> dict[str, str]:
    """The inputs of ingest: every file's hash, and each data set's revision, which is immutable on the
    hub."""
    places = [Path(source.path or source.dataset or "") for source in sources]
    files = [file for place, source in zip(places, sources, strict=True) for file in _files(place, source)]
    revisions = {source.name: f"revision:{source.revision}" for source in sources if source.revision}
    return manifest.hash_files(files) | revisions


def _files(place: Path, source: Source) -> list[Path]:
    return [] if source.dataset and not place.is_dir() else list_files(place)
