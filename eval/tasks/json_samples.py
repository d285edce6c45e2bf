"""Read samples from JSON: one object per line (JSONL), an array, or an object of arrays.

Safety-Prompts and SafetyBench's dev split are objects of arrays. SafetyBench's list of options (`["(A) yes",
"(B) no"]`) and index of the right one are converted to the lines and the letter that prompts and metrics use.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.errors import UserError
from eval.sample import read_jsonl, whole_characters

LETTERS = "ABCDEFGH"


def read_objects(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield location and object of each sample; UserError gives the location of anything else.

    If `options` is a list, it becomes lines `A. yes`, `options_n` is their number, and a numeric `answer`
    (from 0) becomes the letter.
    """
    for location, tree in _read_json(file) if file.suffix == ".json" else read_jsonl(file):
        yield location, _with_options(location, tree) if isinstance(tree.get("options"), list) else tree


def _read_json(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        tree = whole_characters(json.loads(file.read_text("utf-8-sig")))
    except ValueError as error:
        if getattr(error, "msg", "") == "Extra data":  # LexEval's files are JSONL by another name
            yield from read_jsonl(file)
            return
        raise UserError(f"{file}: not valid JSON ({error}).") from None
    arrays = tree if isinstance(tree, dict) else {"": tree}
    for name, array in arrays.items():
        location = f"{file}: {name}" if name else f"{file}"
        if not isinstance(array, list):
            raise UserError(f"{location}: expected a list of objects, not {type(array).__name__}.")
        for number, item in enumerate(array, 1):
            if not isinstance(item, dict):
                raise UserError(
                    f"{location}, item {number}: expected a JSON object, not {type(item).__name__}."
                )
            yield f"{location}, item {number}", item


def _with_options(location: str, tree: dict[str, Any]) -> dict[str, Any]:
    options = [re.sub(r"^\([A-H]\)\s*", "", str(option)) for option in tree["options"]]
    if not 1 < len(options) <= len(LETTERS):
        raise UserError(f"{location}: {len(options)} options; must be 2 to {len(LETTERS)}.")
    lines = "".join(f"{letter}. {text}\n" for letter, text in zip(LETTERS, options, strict=False))
    made = tree | {"options": lines, "options_n": len(options)}
    answer = tree.get("answer")
    if isinstance(answer, int):
        if not 0 <= answer < len(options):
            raise UserError(f"{location}: answer {answer} is not an option; must be 0 to {len(options) - 1}.")
        made["answer"] = LETTERS[answer]
    return made
