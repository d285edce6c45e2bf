"""Preference data: for each prompt an answer that was chosen and one that was rejected, as rows to train on.

    {"prompt": "…" | [messages], "chosen": "…" | [messages], "rejected": "…" | [messages]}

Files are those of data/chat/row_reader.py (JSON, JSON lines, CSV, Parquet, XLSX). `chosen` and `rejected`
may be whole conversations; then `prompt` may be missing. A row holds both chats one behind the other, as two
documents that do not see each other.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from core.config.loader import Config
from core.errors import UserError
from core.model.labels import IGNORED

if TYPE_CHECKING:
    from data.record import Rejected

Array = npt.NDArray[np.int64]


class PairsConfig(Config):
    """Where preferences come from, and how they are made into tokens."""

    paths: tuple[str, ...] = Field(min_length=1)
    """Files or folders of records with `prompt`, `chosen` and `rejected`."""
    template: str | None = None
    """As `data.template` of `python -m sft`; null for the tokenizer's own."""
    max_tokens: int = Field(2048, ge=8)
    """The longest chat; a pair with a longer one is left out."""
    validation_share: float = Field(0.05, ge=0, lt=1)
    """Share of the pairs that is held out, by the prompt."""
    seed: int = Field(0, ge=0)
    """Decides what is held out."""


class Pairs:
    """Pair i as arrays: `input_ids`, `position_ids`, `labels` of shape (2 * max_tokens,), `part` of the same
    shape (0 where the chosen chat stands, 1 where the rejected one does), and `reference` (2,), the
    log-probabilities of both answers under the model that training starts from."""

    def __init__(self, pairs: list[tuple[Any, Any]], max_tokens: int, padding_id: int) -> None:
        """`pairs` are Encoded chats (data/chat/chat_template.py)."""
        self.pairs, self.max_tokens, self.padding_id = pairs, max_tokens, padding_id
        self.reference = np.zeros((len(pairs), 2))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, npt.NDArray[Any]]:
        length = 2 * self.max_tokens
        row = {
            "input_ids": np.full(length, self.padding_id, np.int64),
            "labels": np.full(length, IGNORED, np.int64),
            "position_ids": np.empty(length, np.int64),
            "part": np.zeros(length, np.int64),
        }
        at = 0
        for part, chat in enumerate(self.pairs[index]):
            stop = at + len(chat.ids) - 1
            row["input_ids"][at:stop] = chat.ids[:-1]
            row["labels"][at:stop] = np.where(chat.trained[1:], chat.ids[1:], IGNORED)
            row["position_ids"][at:stop] = np.arange(stop - at)
            row["part"][at:stop] = part
            at = stop
        row["position_ids"][at:] = np.arange(length - at)
        return row | {"reference": self.reference[index]}


def read_pairs(config: PairsConfig, tokenizer: Any) -> tuple[Pairs, Pairs, list["Rejected"]]:
    """Pairs to train on, pairs held out, and what was left out; UserError where none is left to train on."""
    from data.chat.row_reader import rows
    from data.readers.source_files import list_files
    from data.record import Rejected

    sides: tuple[list[Any], list[Any]] = ([], [])
    dropped: list[Rejected] = []
    for path in (file for name in config.paths for file in list_files(Path(name))):
        for place, row in rows(path):
            found = row if isinstance(row, Rejected) else _encode(row, place, config, tokenizer)
            if isinstance(found, Rejected):
                dropped.append(found)
            else:
                prompt, pair = found
                sides[_held_out(prompt, config)].append(pair)
    if not sides[0]:
        first = f"; the first: {dropped[0].source}: {dropped[0].detail}" if dropped else ""
        raise UserError(
            f"{', '.join(config.paths)}: no pair is left to train on; left out: {reasons(dropped)}{first}. A"
            " record has `prompt`, `chosen`, `rejected`."
        )
    padding = tokenizer.pad_token_id
    train, held_out = (Pairs(side, config.max_tokens, padding) for side in sides)
    return train, held_out, dropped


def reasons(dropped: list["Rejected"]) -> dict[str, int]:
    """How many were left out, by reason."""
    return dict(Counter(each.reason for each in dropped))


def _encode(row: dict[str, Any], place: str, config: PairsConfig, tokenizer: Any) -> Any:
    """The prompt and both chats as Encoded, or the Rejected that says why there are none."""
    from data.chat.chat_template import encode
    from data.chat.messages import problem
    from data.record import Rejected

    encoded, prompts = [], []
    for key in ("chosen", "rejected"):
        try:
            messages = _chat(row, key)
            wrong = problem(messages)
            if not wrong and messages[-1]["role"] != "assistant":
                wrong = "no-answer", "the last message is not the assistant's"
            if wrong:
                return Rejected(place, wrong[0], f"`{key}`: {wrong[1]}")
            encoded.append(encode(tokenizer, messages, train_on="last"))
            prompts.append(str(messages[:-1]))
        except KeyError as error:
            return Rejected(place, "no-layout", f"`{key}`: there is no {error}")
        except (TypeError, AttributeError) as error:
            return Rejected(place, "no-layout", f"`{key}`: {error}")
        except ValueError as error:
            return Rejected(place, "template", f"`{key}`: {error}")
    longest = max(len(chat.ids) for chat in encoded)
    if longest > config.max_tokens:
        return Rejected(place, "over-long", f"{longest} tokens")
    if np.array_equal(encoded[0].ids, encoded[1].ids):
        return Rejected(place, "same-answer", "`chosen` and `rejected` are the same")
    return prompts[0], tuple(encoded)


def _chat(row: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The conversation that ends with an answer."""
    answer, prompt = row[key], row.get("prompt") or []
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if isinstance(answer, str):
        answer = [{"role": "assistant", "content": answer}]
    return [*prompt, *answer]


def _held_out(prompt: str, config: PairsConfig) -> int:
    import hashlib

    digest = hashlib.sha256(f"{config.seed}:{prompt}".encode()).digest()
    return int(int.from_bytes(digest[:8], "big") / 2**64 < config.validation_share)
