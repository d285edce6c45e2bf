"""What users say of answers, kept in RUN/ratings.jsonl, and the preference pairs that follow from it.

a correction beats what it corrects · an answer with a thumb up beats one with a thumb down to the same
prompt · of several ratings of one answer the last counts · a single thumb makes no pair
"""

import json
import os
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from core.errors import UserError
from core.provenance import atomic_io

Thumb = Literal["up", "down", "none"]
THUMBS: tuple[Thumb, ...] = get_args(Thumb)
NAME = "ratings.jsonl"


class Ratings:
    """The ratings of a run, appended to as they come; each is on the disk when `add` returns."""

    def __init__(self, run: Path) -> None:
        self.last = {line["answer"]: _kept(line) for line in read(run)}
        self.lock = threading.Lock()
        descriptor = os.open(run / NAME, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self.output = os.fdopen(descriptor, "ab", buffering=0)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a killed server's last line
            self.output.write(b"\n")

    def add(self, answer: str, thumb: Thumb, correction: str | None, about: dict[str, Any]) -> None:
        """Keep a rating; `about` has the `prompt` (messages as the engine got them) and the answer's
        `text`."""
        time = datetime.now(UTC).isoformat(timespec="seconds")
        line = {"time": time, "answer": answer, "rating": thumb, "correction": correction, **about}
        with self.lock:
            self.output.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            os.fsync(self.output.fileno())
            self.last[answer] = _kept(line)

    def counts(self) -> dict[str, int]:
        """How many answers have each thumb now, and how many a correction."""
        kept = list(self.last.values())  # at once: other threads add to it
        thumbs = Counter(thumb for thumb, _ in kept)
        corrected = sum(corrected for _, corrected in kept)
        return {"up": thumbs["up"], "down": thumbs["down"], "corrections": corrected}


def _kept(line: dict[str, Any]) -> tuple[str, bool]:
    """What is kept in memory of a rating: its thumb, and whether it has a correction."""
    return sys.intern(line["rating"]), bool(line.get("correction"))


def read(run: Path) -> Iterator[dict[str, Any]]:
    """The ratings of a run in the order in which they came; a line that a killed server left half is left
    out."""
    file = run / NAME
    if not file.exists():
        return
    with file.open("rb") as lines:
        for line in lines:
            try:
                rating = json.loads(line)
            except ValueError:
                continue
            if isinstance(rating, dict) and rating.get("rating") in THUMBS and "answer" in rating:
                yield rating


def write_pairs(run: Path, output: Path, *, force: bool = False) -> dict[str, int]:
    """Write the preference pairs of a run as JSON lines for `python -m sft dpo`; returns counts.

    Raises UserError if there is no rating, or none that makes a pair.
    """
    if output.exists() and not force:
        raise UserError(f"{output} already exists. Choose another name, or pass --force to replace it.")
    last = {line["answer"]: line for line in read(run)}
    if not last:
        raise UserError(f"{run / NAME}: no ratings.")
    pairs, used = [], set()
    by_prompt: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for rating in last.values():
        by_prompt[json.dumps(rating["prompt"], sort_keys=True)].append(rating)
        if rating["correction"] and rating["correction"].strip() != rating["text"].strip():
            pairs.append(_pair(rating, rating["correction"], rating["text"], "correction"))
            used.add(rating["answer"])
    corrected = len(pairs)
    for ratings in by_prompt.values():
        up = {line["text"]: line for line in ratings if line["rating"] == "up"}
        down = {line["text"]: line for line in ratings if line["rating"] == "down"}
        for better in sorted(up.keys() - down.keys()):
            for worse in sorted(down.keys() - up.keys()):
                pairs.append(_pair(up[better], better, worse, "thumbs"))
                used |= {up[better]["answer"], down[worse]["answer"]}
    if not pairs:
        raise UserError(
            f"{run / NAME}: {len(last):,} rated answers make no pair: none has a correction, no prompt has"
            " an answer with a thumb up and one with a thumb down."
        )
    lines = [json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs]
    atomic_io.write_text(output, "".join(lines))
    alone = sum(line["rating"] != "none" for answer, line in last.items() if answer not in used)
    return {"pairs": len(pairs), "corrections": corrected, "thumbs": len(pairs) - corrected, "alone": alone}


def _pair(rating: dict[str, Any], chosen: str, rejected: str, kind: str) -> dict[str, Any]:
    answers = {"chosen": chosen.strip(), "rejected": rejected.strip()}
    return {"prompt": rating["prompt"], **answers, "source": f"ratings-{kind}"}
