"""The configuration of instruction data: its sources, and how chats become tokens."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from core.config.loader import Config
from data.chat.chat_template import TrainOn
from data.chat.record_formats import LAYOUTS
from data.executor import EngineConfig
from data.readers.source import Use


class ChatSource(Config):
    """Files of chats, or a data set of the Hugging Face hub, with its terms."""

    path: str | None = None
    """A file, or a folder of files (including subfolders; hidden files are left out)."""
    dataset: str | None = None
    """Instead of `path`: a data set on the Hugging Face hub, or a local folder that `datasets` can load."""
    revision: str | None = None
    """The data set's revision: a commit hash, so that the data can be reproduced."""
    split: str | None = None
    """The data set's split; null for all splits."""
    name: str = ""
    """Its name in counts; empty for its path, or data set and revision."""
    layout: str = "auto"
    """The layout of its records; `auto` recognises each record's layout by its keys."""
    side: Literal["auto", "train", "validation"] = "auto"
    """`auto` splits the source by `validation_share`; the others put all of it on one side."""
    cap: int | None = Field(None, ge=1)
    """Maximum number of chats, drawn by the seed; null for all."""
    weight: float = Field(1.0, gt=0, le=100)
    """How often each chat is in the training data: 3 repeats it three times, 0.5 takes half of the chats,
    drawn by the seed."""
    replay: bool = False
    """Whether these are general chats, repeated in a domain stage: together they make up `replay_share`."""
    licence: str = "unknown"
    """The licence, e.g. `CC-BY-4.0`."""
    use: Use = "unknown"
    """The use that the licence permits."""

    @model_validator(mode="after")
    def _right(self) -> "ChatSource":
        if (self.path is None) == (self.dataset is None):
            raise ValueError("set either `path` or `dataset`")
        if self.dataset is not None and self.revision is None and not Path(self.dataset).is_dir():
            raise ValueError(f"data set {self.dataset} needs a `revision` (a commit hash on the hub)")
        if self.layout != "auto" and self.layout not in LAYOUTS:
            raise ValueError(f"unknown layout {self.layout!r}. Layouts: auto, {', '.join(LAYOUTS)}")
        return self

    @property
    def title(self) -> str:
        """Its name in counts."""
        if self.name:
            return self.name
        return self.path or "/".join(filter(None, (f"{self.dataset}@{self.revision}", self.split)))

    @property
    def label(self) -> str:
        """Its name without the folder that contains it."""
        return self.name or Path(self.path or str(self.dataset)).name


class ChatDataConfig(Config):
    """From files of chats to token ids and a mask of the trained ones."""

    output_dir: str
    """The output folder."""
    sources: tuple[ChatSource, ...] = Field(min_length=1)
    """The sources of chats."""
    template: str | None = None
    """A template of this project (`llama2`, `llama3`, `chatml`, `alpaca`, `kullm`, `linly`, `patent-llama`);
    null for the tokenizer's own."""
    system_prompt: str | None = None
    """The system message of chats that have none."""
    train_on: TrainOn = "answers"
    """`answers`: every answer with its end token; `last`: the last answer; `all`: every token."""
    max_tokens: int = Field(2048, ge=8)
    """Maximum length of a chat, in tokens."""
    over_long: Literal["cut", "drop"] = "cut"
    """What to do with a longer chat: cut its prompt from the left (the oldest turns first, then the beginning
    of the question; the system message stays), or drop it. If the last answer alone is too long, the chat is
    cut to end with the answer before it; a chat without an answer that fits is dropped."""
    validation_share: float = Field(0.02, ge=0, lt=1)
    """Share of the chats held out, by the first question: chats with the same question are on the same
    side."""
    replay_share: float | None = Field(None, gt=0, lt=1)
    """Share of the training tokens from sources with `replay: true`; null takes them unchanged."""
    seed: int = Field(0, ge=0)
    """Seed of the split, the draws and the order."""
    error_budget: float | None = Field(0.1, ge=0, le=1)
    """Maximum share of records without a chat. The command stops if there are more, and more than 100; null
    for no limit."""
    engine: EngineConfig = EngineConfig()

    @model_validator(mode="after")
    def _right(self) -> "ChatDataConfig":
        titles = [source.title for source in self.sources]
        if twice := {title for title in titles if titles.count(title) > 1}:
            raise ValueError(f"two sources are named {min(twice)!r}; set a different `name` for one")
        if self.replay_share is not None and all(s.replay for s in self.sources):
            raise ValueError("`replay_share` needs sources with and without `replay: true`")
        if self.replay_share is not None and not any(s.replay for s in self.sources):
            raise ValueError("`replay_share` needs a source with `replay: true`")
        return self
