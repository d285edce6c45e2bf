"""Where documents come from, and what may be done with them."""

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
"""What a source must permit for each use that a corpus may require."""


class Source(Config):
    """A file, a folder, or a data set of the Hugging Face hub, with its terms."""

    path: str | None = None
    """A file, or a folder of files (with its subfolders; hidden files are left out)."""
    dataset: str | None = None
    """In place of `path`: a data set on the Hugging Face hub, or a local folder that `datasets` loads."""
    revision: str | None = None
    """The data set's revision; a commit's hash, so that the corpus can be made again."""
    split: str | None = None
    """The data set's split; null for all."""
    columns: dict[str, str] = Field(default_factory=dict)
    """For tables: the record's field that a column holds, by the column's name, as `{"摘要": "abstract"}`.
    Common names are known without (data/readers/column_mapping.py)."""
    text_field: str | None = None
    """For tables of other texts, as judgments: the column that is the text. Null for the longest text column
    where no column's name is known."""
    layout: Literal["documents", "paragraphs"] = "documents"
    """Of plain text: one document a file, or documents separated by blank lines."""
    defaults: dict[str, str] = Field(default_factory=dict)
    """What records do not say themselves: `office`, `kind`, `language`, `date`, as `{"language": "en"}`."""
    licence: str = "unknown"
    """The licence, as `CC0-1.0` or `official publications`."""
    use: Use = "unknown"
    """What it permits."""

    @model_validator(mode="after")
    def _one_place(self) -> "Source":
        if (self.path is None) == (self.dataset is None):
            raise ValueError("a source has either `path` or `dataset`")
        if self.dataset is None and (self.revision or self.split):
            raise ValueError("`revision` and `split` belong to a `dataset`")
        if self.dataset is not None and self.revision is None and not Path(self.dataset).is_dir():
            raise ValueError(f"data set {self.dataset} needs a `revision` (a commit's hash on the hub)")
        return self

    @property
    def name(self) -> str:
        """What the source is called in counts: its path, or `DATASET@REVISION`."""
        if self.path is not None:
            return self.path
        return "@".join(filter(None, (self.dataset, self.revision))) + (
            f"/{self.split}" if self.split else ""
        )

    @property
    def terms(self) -> dict[str, str]:
        """What every manifest says about it."""
        return {"licence": self.licence, "use": self.use}

    def options(self) -> Options:
        """What the readers of tables and texts need to know."""
        return Options(self.columns, self.text_field, self.layout, self.defaults)


def check_sources(sources: Sequence[Source], require_use: str | None = None) -> None:
    """UserError where a source maps to fields that do not exist or does not permit what is required."""
    for source in sources:
        for column, field in source.columns.items():
            if field not in FIELDS:
                mapped = f"column {column!r} is mapped to {field!r}"
                raise UserError(f"source {source.name}: {mapped}; the fields are {', '.join(FIELDS)}.")
        if wrong := source.defaults.keys() - set(PLAIN):
            raise UserError(
                f"source {source.name}: `defaults` may give {', '.join(PLAIN)}, not {min(wrong)!r}."
            )
    known: dict[str, Source] = {}
    for source in sources:
        if known.setdefault(source.name, source).terms != source.terms:
            raise UserError(f"source {source.name} is named twice, with other terms. Leave one out.")
    refused = [source for source in sources if require_use and source.use not in ALLOWS[require_use]]
    if refused:
        listed = "\n".join(
            f"  {source.name}: use {source.use}, licence {source.licence}" for source in refused
        )
        raise UserError(
            f"`require_use: {require_use}` refuses these sources:\n{listed}\n"
            "Leave them out, or correct `use` where you know that the licence permits it."
        )
