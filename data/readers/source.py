"""Where documents come from, and which use their licence permits."""

import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from core.config.loader import Config
from core.errors import UserError
from data.readers.column_mapping import FIELDS, Options

PLAIN = ("office", "kind", "language", "date")

Use = Literal["any", "non-commercial", "research", "unknown"]

ALLOWS: dict[str, tuple[Use, ...]] = {
    "commercial": ("any",),
    "non-commercial": ("any", "non-commercial"),
    "research": ("any", "non-commercial", "research"),
}
"""For each use that a corpus may require, the values of `use` that permit it."""


class Source(Config):
    """A file, a folder, or a data set of the Hugging Face hub, with its terms."""

    path: str | None = None
    """A file, or a folder of files (including subfolders; hidden files are left out)."""
    dataset: str | None = None
    """Instead of `path`: a data set on the Hugging Face hub, or a local folder that `datasets` can load."""
    revision: str | None = None
    """The data set's revision: a commit hash, so that the corpus can be reproduced."""
    split: str | None = None
    """The data set's split; null for all splits."""
    columns: dict[str, str] = Field(default_factory=dict)
    """For tables: column name to record field, e.g. `{"摘要": "abstract"}`. Common names are recognised
    without it (data/readers/column_mapping.py)."""
    text_field: str | None = None
    """For tables of other texts, such as judgments: the column with the text. null for the longest text
    column if no column name is known."""
    layout: Literal["documents", "paragraphs"] = "documents"
    """For plain text: one document per file, or one per paragraph (separated by blank lines)."""
    defaults: dict[str, str] = Field(default_factory=dict)
    """Values for `office`, `kind`, `language` and `date` if a record has none, e.g. `{"language": "en"}`."""
    encoding: str | None = None
    """The encoding of all its files, e.g. `cp949`, if it is not recognised; null to recognise UTF-8, UTF-16,
    what XML declares and, in tables and plain text, GB18030, CP949 (EUC-KR), CP932 (Shift_JIS) and Big5."""
    licence: str = "unknown"
    """The licence, e.g. `CC0-1.0` or `official publications`."""
    use: Use = "unknown"
    """The use that the licence permits."""

    @model_validator(mode="after")
    def _one_place(self) -> "Source":
        if (self.path is None) == (self.dataset is None):
            raise ValueError("set either `path` or `dataset`")
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError:
                raise ValueError(f"`encoding: {self.encoding}` is unknown; e.g. cp949, cp932, big5") from None
            if self.dataset is not None:
                raise ValueError("`encoding` requires `path`: data sets of the hub are Unicode")
        if self.dataset is None and (self.revision or self.split):
            raise ValueError("`revision` and `split` require `dataset`")
        if self.dataset is not None and self.revision is None and not Path(self.dataset).is_dir():
            raise ValueError(f"data set {self.dataset} needs a `revision` (a commit hash on the hub)")
        return self

    @property
    def name(self) -> str:
        """The name used in counts: its path, or `DATASET@REVISION`."""
        if self.path is not None:
            return self.path
        return "@".join(filter(None, (self.dataset, self.revision))) + (
            f"/{self.split}" if self.split else ""
        )

    @property
    def terms(self) -> dict[str, str]:
        """Its terms, as recorded in every manifest."""
        return {"licence": self.licence, "use": self.use}

    def options(self) -> Options:
        """The options for the readers of tables and texts."""
        return Options(self.columns, self.text_field, self.layout, self.defaults, self.encoding)


def check_sources(sources: Sequence[Source], require_use: str | None = None) -> None:
    """UserError if a source maps a column to an unknown field or does not permit the required use."""
    for source in sources:
        for column, field in source.columns.items():
            if field not in FIELDS:
                mapped = f"column {column!r} is mapped to the unknown field {field!r}"
                raise UserError(f"source {source.name}: {mapped}. Fields: {', '.join(FIELDS)}.")
        if wrong := source.defaults.keys() - set(PLAIN):
            raise UserError(
                f"source {source.name}: `defaults` cannot set {min(wrong)!r}. Allowed: {', '.join(PLAIN)}."
            )
    known: dict[str, Source] = {}
    for source in sources:
        if known.setdefault(source.name, source).terms != source.terms:
            raise UserError(f"source {source.name} is listed twice with different terms. Remove one.")
    refused = [source for source in sources if require_use and source.use not in ALLOWS[require_use]]
    if refused:
        listed = "\n".join(
            f"  {source.name}: use {source.use}, licence {source.licence}" for source in refused
        )
        raise UserError(
            f"these sources do not permit `require_use: {require_use}`:\n{listed}\n"
            "Remove them, or correct `use` if the licence permits it."
        )
