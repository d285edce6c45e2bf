"""Preference data: for each prompt an answer that was chosen and one that was rejected, as rows to train on.

    {"prompt": "…" | [messages], "chosen": "…" | [messages], "rejected": "…" | [messages]}

Files are those of data/chat/row_reader.py (JSON, JSON lines, CSV, Parquet, XLSX), and other layouts those of
sft/preference_layouts.py. A row holds both chats one after the other, as two documents that do not see each
other.

    RUN/pairs/train.ids.npy      token ids of all chats, the chosen and the rejected one of each pair in turn
              train.trained.npy  1 for each token that is trained on
              train.ends.npy     where each chat ends
              validation.…       the same of the held-out pairs
    RUN/dropped.jsonl            records left out, with their reason
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from core.config.loader import Config
from core.errors import UserError
from core.model.labels import IGNORED
from core.provenance import atomic_io, manifest

if TYPE_CHECKING:
    from data.record import Rejected

Array = npt.NDArray[np.int64]


class PairsConfig(Config):
    """Where preference data comes from, and how it is tokenised."""

    paths: tuple[str, ...] = Field(min_length=1)
    """Files or folders with records of `prompt`, `chosen` and `rejected`."""
    template: str | None = None
    """Chat template, as `data.template` in `python -m sft`; null: the tokenizer's own."""
    max_tokens: int = Field(2048, ge=8)
    """Maximum chat length in tokens; pairs with a longer chat are dropped."""
    validation_share: float = Field(0.05, ge=0, lt=1)
    """Fraction of the pairs held out for validation, chosen by prompt."""
    seed: int = Field(0, ge=0)
    """Seed for choosing the held-out pairs."""
    licence: str = "unknown"
    """Licence of the pairs; recorded in the model's manifest."""
    use: str = "unknown"
    """Permitted use of the pairs, e.g. research; recorded in the model's manifest."""


TERMS = {"licence", "use"}
"""Keys that do not decide the tokens."""
SPLITS = ("train", "validation")


class Pairs:
    """Pair i as arrays: `input_ids`, `position_ids`, `labels` of shape (2 * max_tokens,), `part` of the same
    shape (0 where the chosen chat stands, 1 where the rejected one does), and `reference` (2,), the
    log-probabilities of both answers under the model that training starts from."""

    def __init__(self, ids: Any, trained: Any, ends: Any, max_tokens: int, padding_id: int) -> None:
        """Pair i is the chats 2i and 2i + 1 of `ids`, a flat array; chat j ends at `ends[j]`."""
        self.ids, self.trained, self.starts = ids, trained, np.concatenate([[0], ends]).astype(np.int64)
        self.max_tokens, self.padding_id = max_tokens, padding_id
        self.reference = np.zeros((len(self), 2))

    def __len__(self) -> int:
        return (len(self.starts) - 1) // 2

    def __getitem__(self, index: int) -> dict[str, npt.NDArray[Any]]:
        length = 2 * self.max_tokens
        row = {
            "input_ids": np.full(length, self.padding_id, np.int64),
            "labels": np.full(length, IGNORED, np.int64),
            "position_ids": np.empty(length, np.int64),
            "part": np.zeros(length, np.int64),
        }
        at = 0
        for part in range(2):
            chat = slice(*self.starts[2 * index + part :][:2])
            ids, trained = self.ids[chat], self.trained[chat]
            stop = at + len(ids) - 1
            row["input_ids"][at:stop] = ids[:-1]
            row["labels"][at:stop] = np.where(trained[1:], ids[1:], IGNORED)
            row["position_ids"][at:stop] = np.arange(stop - at)
            row["part"][at:stop] = part
            at = stop
        row["position_ids"][at:] = np.arange(length - at)
        return row | {"reference": self.reference[index]}


def write_pairs(
    folder: Path, config: PairsConfig, tokenizer: Any, inputs: Mapping[str, str], *, force: bool
) -> None:
    """Tokenise the pairs into `folder`, unless they are there; with `force`, replace what differs."""
    settings = {"config": config.model_dump(mode="json", exclude=TERMS), "inputs": inputs}
    try:
        if manifest.up_to_date(
            folder, **settings, advice="Choose another run_dir, or pass --prepare --force."
        ):
            print(f"pairs          up to date: {folder}")
            return
    except UserError:
        if not force:
            raise
    splits, dropped = read_pairs(config, tokenizer)
    with manifest.build(folder, step="pairs", **settings, force=force) as built:
        for name, pairs in splits.items():
            for kind in ("ids", "trained"):
                np.save(built.path / f"{name}.{kind}.npy", getattr(pairs, kind))
            np.save(built.path / f"{name}.ends.npy", pairs.starts[1:])
            built.counts[name] = len(pairs)
        lines = [json.dumps(each.__dict__, ensure_ascii=False) + "\n" for each in dropped]
        atomic_io.write_text(folder.with_name("dropped.jsonl"), "".join(lines))
        built.counts |= {"dropped": reasons(dropped), "max_tokens": config.max_tokens}
        built.sources = {path: {"licence": config.licence, "use": config.use} for path in config.paths}
    print(f"pairs          done: {folder}")


def open_pairs(folder: Path, padding_id: int) -> dict[str, Pairs]:
    """The pairs that `write_pairs` wrote, by split, mapped from the disk."""
    longest = manifest.read(folder)["counts"]["max_tokens"]
    return {
        name: Pairs(
            np.load(folder / f"{name}.ids.npy", mmap_mode="r"),
            np.load(folder / f"{name}.trained.npy", mmap_mode="r"),
            np.load(folder / f"{name}.ends.npy"),
            longest,
            padding_id,
        )
        for name in SPLITS
    }


def read_pairs(config: PairsConfig, tokenizer: Any) -> tuple[dict[str, Pairs], list["Rejected"]]:
    """The pairs of each split, and the records left out; UserError if none is left to train on."""
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
    shape = (config.max_tokens, tokenizer.pad_token_id)
    pairs = {name: Pairs(*_flat(side), *shape) for name, side in zip(SPLITS, sides, strict=True)}
    return pairs, dropped


def _flat(pairs: Sequence[tuple[Any, Any]]) -> tuple[Array, Array, Array]:
    """Ids, marks and ends of all chats of `pairs` (Encoded, data/chat/chat_template.py), in their order."""
    chats = list(chain.from_iterable(pairs))
    ids = [np.asarray(chat.ids, np.int64) for chat in chats]
    trained = [np.asarray(chat.trained, bool) for chat in chats]
    ends = np.cumsum([len(each) for each in ids], dtype=np.int64)
    return (np.concatenate(ids), np.concatenate(trained), ends) if chats else (ends, ends.astype(bool), ends)


def reasons(dropped: list["Rejected"]) -> dict[str, int]:
    """How many were left out, by reason."""
    return dict(Counter(each.reason for each in dropped))


def _encode(row: dict[str, Any], place: str, config: PairsConfig, tokenizer: Any) -> Any:
    """The prompt and both chats as Encoded, or the Rejected that says why there are none."""
    from data.chat.chat_template import encode
    from data.chat.messages import problem
    from data.chat.record_formats import tools_of
    from data.record import Rejected
    from sft.preference_layouts import Disagreement, read_pair

    encoded = []
    try:
        tools = tools_of(row)
        chats = read_pair(row)
    except KeyError as error:
        return Rejected(place, "no-layout", f"`{error.args[0]}`: there is no {error}")
    except Disagreement as error:
        return Rejected(place, "other-prompt", str(error))
    except (TypeError, AttributeError, ValueError) as error:
        return Rejected(place, "no-layout", str(error))
    for key, messages in zip(("chosen", "rejected"), chats, strict=True):
        wrong = problem(messages)
        if not wrong and messages[-1]["role"] != "assistant":
            wrong = "no-answer", "the last message is not the assistant's"
        if wrong:
            return Rejected(place, wrong[0], f"`{key}`: {wrong[1]}")
        try:
            encoded.append(encode(tokenizer, messages, train_on="last", tools=tools or None))
        except ValueError as error:
            return Rejected(place, "template", f"`{key}`: {error}")
    longest = max(len(chat.ids) for chat in encoded)
    if longest > config.max_tokens:
        return Rejected(place, "over-long", f"{longest} tokens")
    if np.array_equal(encoded[0].ids, encoded[1].ids):
        return Rejected(place, "same-answer", "`chosen` and `rejected` are the same")
    return str(chats[0][:-1]), tuple(encoded)


def _held_out(prompt: str, config: PairsConfig) -> int:
    import hashlib

    digest = hashlib.sha256(f"{config.seed}:{prompt}".encode()).digest()
    return int(int.from_bytes(digest[:8], "big") / 2**64 < config.validation_share)
