"""The questions that a gate is made from: the first message of the user in each chat, and its source."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from core.errors import UserError
from data.chat.messages import merged
from data.chat.record_formats import Unfit, read_row
from data.chat.row_reader import rows
from data.readers.source_files import list_files
from data.record import Rejected
from serve.gate.classifier import fold

SIDES = ("domain", "general")
PLACE = re.compile(r"#[\w.]*$")
"""The line or number at the end of a chat's source."""


class Questions(NamedTuple):
    """Different questions of both sides."""

    texts: list[str]
    """Folded."""
    places: list[tuple[str, bool]]
    """Of each: its source, and whether it is of the domain."""
    files: list[Path]
    counts: dict[str, dict[str, int]]


def read(domain: Sequence[Path], general: Sequence[Path]) -> Questions:
    """The questions of files or folders of chats.

    Equal questions count once, with the source that comes first; those on both sides are left out. UserError
    with the file and line of a row that is not a chat, or has no message of a user.
    """
    files = [[file for path in paths for file in list_files(path)] for paths in (domain, general)]
    counts = {side: Counter[str](files=len(f)) for side, f in zip(SIDES, files, strict=True)}
    found: list[dict[str, str]] = [{}, {}]
    names = Counter(file.name for mine in files for file in mine)
    for side, mine, texts in zip(SIDES, files, found, strict=True):
        for file in tqdm(mine, f"read {side}", unit="file", delay=2, disable=None):
            name = file.name if names[file.name] == 1 else file.as_posix()
            for source, text in _questions(file, name):
                counts[side]["chats"] += 1
                counts[side]["empty" if not text else "repeated" if text in texts else "questions"] += 1
                if text:
                    texts.setdefault(text, source)
    for text in found[0].keys() & found[1].keys():
        for side, texts in zip(SIDES, found, strict=True):
            del texts[text]
            counts[side]["on_both_sides"] += 1
            counts[side]["questions"] -= 1
    return Questions(
        [text for texts in found for text in texts],
        [(source, texts is found[0]) for texts in found for source in texts.values()],
        [file for mine in files for file in mine],
        {side: dict(sorted(counts[side].items())) for side in SIDES},
    )


def _questions(file: Path, name: str) -> Iterator[tuple[str, str]]:
    """The source and the folded first question of each chat of a file."""
    for place, row in rows(file):
        if isinstance(row, Rejected):
            raise UserError(f"{place}: {row.reason} ({row.detail}). Correct it, or leave it out.")
        try:
            _, chats = read_row(row, place)
        except Unfit as error:
            raise UserError(f"{place}: not a chat: {error}. Correct it, or leave it out.") from None
        source = row.get("source")
        source = PLACE.sub("", source).strip() if isinstance(source, str) else ""
        for chat in chats:
            yield source or name, fold(_first_question(chat["messages"], place))


def _first_question(messages: list[dict[str, Any]], place: str) -> str:
    first = next((merged(message) for message in messages if message.get("role") == "user"), None)
    if first is None:
        raise UserError(f"{place}: no message of the role `user`. Correct it, or leave it out.")
    if not isinstance(first["content"], str):
        kind = type(first["content"]).__name__
        raise UserError(f"{place}: the user's message is {kind}, not text. Correct it, or leave it out.")
    return first["content"]
