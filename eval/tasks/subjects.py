"""The subjects of an exam: their names in prompts, and the groups that scores are broken down by.

subjects.json (subject: [English name, name in the prompt, category, subset …]) ──▶ Subjects ──▶ name, groups
"""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from core.errors import UserError
from eval.metrics.ceval import HARD

TASKS = Path("configs/eval")
SHORTEST = 3
"""Names and category, C-Eval's format."""


class Subjects(NamedTuple):
    """The subjects of a file, by their names as `_key` writes them."""

    file: Path
    entries: Mapping[str, Sequence[str]]
    is_ceval: bool = False
    """It has all hard subjects of C-Eval, and the task's name does not say so already."""

    def of(self, subject: str) -> tuple[str, dict[str, str]]:
        """Name in the prompt, and groups, of a subject; UserError if the file does not have it."""
        if _key(subject) not in self.entries:
            nearest = get_close_matches(_key(subject), self.entries, n=1, cutoff=0)
            raise UserError(
                f"{self.file}: no subject `{subject}`, which a data file is named after (nearest: "
                f"{', '.join(nearest) or 'none'}). Rename the file, move it away, or add the subject."
            )
        _, shown, category, *subsets = self.entries[_key(subject)]
        groups = {"subject": subject} | ({"category": category} if category else {})
        groups |= {"subset": subsets[0]} if subsets else {}
        return shown, groups | ({"hard": "Hard"} if self.is_ceval and _key(subject) in HARD else {})


def subjects_file(name: str, root: Path, task: str) -> Path:
    """The file under the data folder, or else in configs/eval."""
    for file in (root / name, TASKS / name):
        if file.is_file():
            return file
    raise UserError(f"task {task}: no file {root / name} or {TASKS / name}. Correct `subjects` or --data.")


def read_subjects(file: Path, task: str = "") -> Subjects:
    """Read a task's file of subjects; UserError names an entry of another form."""
    try:
        tree = json.loads(file.read_text("utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{file}: not valid JSON ({error}).") from None
    for subject, entry in tree.items() if isinstance(tree, dict) else [("", tree)]:
        texts = isinstance(entry, list) and all(isinstance(text, str) for text in entry)
        if not (subject and texts and len(entry) >= SHORTEST):
            raise UserError(f"{file}: `{subject}` must be [English name, name in the prompt, category, …].")
    entries = {_key(subject): entry for subject, entry in tree.items()}
    return Subjects(file, entries, entries.keys() >= {*HARD} and not task.startswith("ceval"))


def _key(subject: str) -> str:
    """KMMLU's files are named `Criminal-Law`, or `criminal_law`."""
    return subject.casefold().replace("-", "_")
