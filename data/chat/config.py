"""What instruction data is made from, and how."""

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
    """A file, or a folder of files (with its subfolders; hidden files are left out)."""
    dataset: str | None = None
    """In place of `path`: a data set on the Hugging Face hub, or a local folder that `datasets` loads."""
    revision: str | None = None
    """The data set's revision; a commit's hash, so that the data can be made again."""
    split: str | None = None
    """The data set's split; null for all."""
    name: str = ""
    """What counts call it; empty for its path, or data set and revision."""
    layout: str = "auto"
    """The layout of its records, or `auto`: each record's is recognised by its keys."""
    side: Literal["auto", "train", "validation"] = "auto"
    """`auto` splits it by `validation_share`; the others put all of it on one side."""
    cap: int | None = Field(None, ge=1)
    """Take so many chats at most, drawn by the seed; null for all."""
    weight: float = Field(1.0, gt=0, le=100)
    """How often each chat stands in the training data: 3 upsamples, 0.5 takes half of them, drawn by the
    seed."""
    replay: bool = False
    """General chats that a domain's stage repeats: together they make up `replay_share`."""
    licence: str = "unknown"
    """The licence, as `CC-BY-4.0`."""
    use: Use = "unknown"
    """What it permits."""

    @model_validator(mode="after")
    def _right(self) -> "ChatSource":
        if (self.path is None) == (self.dataset is None):
            raise ValueError("a source has either `path` or `dataset`")
        if self.dataset is not None and self.revision is None and not Path(self.dataset).is_dir():
            raise ValueError(f"data set {self.dataset} needs a `revision` (a commit's hash on the hub)")
        if self.layout != "auto" and self.layout not in LAYOUTS:
            raise ValueError(f"there is no layout {self.layout!r}; there are auto, {', '.join(LAYOUTS)}")
        return self

    @property
    def title(self) -> str:
        """What the source is called in counts."""
        if self.name:
            return self.name
        return self.path or "/".join(filter(None, (f"{self.dataset}@{self.revision}", self.split)))

    @property
    def label(self) -> str:
        """What it is called wherever it lies."""
        return self.name or Path(self.path or str(self.dataset)).name


class ChatDataConfig(Config):
    """From files of chats to token ids with marks on those that are trained on."""

    output_dir: str
    """The finished folder."""
    sources: tuple[ChatSource, ...] = Field(min_length=1)
    """Where chats come from."""
    template: str | None = None
    """Our template by its name (`llama2`, `llama3`, `chatml`, `alpaca`, `kullm`, `linly`, `patent-llama`);
    null for the tokenizer's own."""
    system_prompt: str | None = None
    """What the system says in chats that have no message of its own."""
    train_on: TrainOn = "answers"
    """`answers`: every answer with its end token; `last`: the last answer; `all`: every token."""
    max_tokens: int = Field(2048, ge=8)
    """The longest chat."""
    over_long: Literal["cut", "drop"] = "cut"
    """What happens to a longer one: its prompt is cut from the left (the oldest exchanges first, then the
    beginning of the question; the system's message stays), or it is left out. One whose last answer alone is
    too long is left out either way."""
    validation_share: float = Field(0.02, ge=0, lt=1)
    """Share of the chats that is held out, by the first question: the same question is on one side."""
    replay_share: float | None = Field(None, gt=0, lt=1)
    """The share of the training tokens that sources with `replay` make up; null takes them as they are."""
    seed: int = Field(0, ge=0)
    """Decides what is held out and drawn, and the order."""
    error_budget: float | None = Field(0.1, ge=0, le=1)
    """Share of the records that may give no chat. More than this, and more than 100, end the work; null for
    no limit."""
    engine: EngineConfig = EngineConfig()

    @model_validator(mode="after")
    def _right(self) -> "ChatDataConfig":
        titles = [source.title for source in self.sources]
        if twice := {title for title in titles if titles.count(title) > 1}:
            raise ValueError(f"two sources are called {min(twice)!r}; give one of them another `name`")
        if self.replay_share is not None and all(s.replay for s in self.sources):
            raise ValueError("`replay_share` needs sources with and without `replay: true`")
        if self.replay_share is not None and not any(s.replay for s in self.sources):
            raise ValueError("`replay_share` needs a source with `replay: true`")
        return self
