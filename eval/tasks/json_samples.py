"""Objects of a data file, one a sample: JSONL, a JSON array, or JSON with arrays under names.

Safety-Prompts and SafetyBench's dev split are arrays under names. SafetyBench's options, a list (`["(A) yes",
"(B) no"]`) with the right one's number, become the lines and the letter that a prompt and a metric take.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.errors import UserError
from eval.sample import read_jsonl

LETTERS = "ABCDEFGH"


def read_objects(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and object of each sample; UserError names file and place of what is none.

    Where `options` is a list, it becomes lines `A. yes`, `options_n` is their number and a numeric `answer`
    (from 0) the letter.
    """
    for place, tree in _read_json(file) if file.suffix == ".json" else read_jsonl(file):
        yield place, _with_options(place, tree) if isinstance(tree.get("options"), list) else tree


def _read_json(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        tree = json.loads(file.read_text("utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{file}: not JSON ({error}).") from None
    arrays = tree if isinstance(tree, dict) else {"": tree}
    for name, array in arrays.items():
        place = f"{file}: {name}" if name else f"{file}"
        if not isinstance(array, list):
            raise UserError(f"{place}: a list of objects is needed, not {type(array).__name__}.")
        for number, item in enumerate(array, 1):
            if not isinstance(item, dict):
                raise UserError(
                    f"{place}, item {number}: an object {{…}} is needed, not {type(item).__name__}."
                )
            yield f"{place}, item {number}", item


def _with_options(place: str, tree: dict[str, Any]) -> dict[str, Any]:
    options = [re.sub(r"^\([A-H]\)\s*", "", str(option)) for option in tree["options"]]
    if not 1 < len(options) <= len(LETTERS):
        raise UserError(f"{place}: {len(options)} options; from 2 to {len(LETTERS)} can be asked.")
    lines = "".join(f"{letter}. {text}\n" for letter, text in zip(LETTERS, options, strict=False))
    made = tree | {"options": lines, "options_n": len(options)}
    answer = tree.get("answer")
    if isinstance(answer, int):
        if not 0 <= answer < len(options):
            raise UserError(f"{place}: answer {answer} is none of the {len(options)} options, from 0.")
        made["answer"] = LETTERS[answer]
    return made
