"""The file that C-Eval's site scores: the answers to its test questions, by subject and question.

RUN/predictions.jsonl ──letters──▶ {"subject": {"0": "A", …}, …} (README of hkust-nlp/ceval)
"""

import json
from pathlib import Path

from core.errors import UserError
from core.provenance import atomic_io
from eval.metrics.answers import without_thought
from eval.metrics.letters import LETTERS, answer_letters, numbered
from eval.sample import read_predictions

SUBJECTS, QUESTIONS = 52, 12_342
"""Of C-Eval's test split."""


def write_submission(run: Path, task: str, output: Path) -> str:
    """Write the answers of a task's unanswered questions and say what the file has; UserError if there are
    none. An answer without a letter stays empty, which counts as wrong."""
    samples = [s for s in read_predictions(run) if s.task == task]
    if lacking := [s for s in samples if s.reference or "subject" not in s.groups or not s.options]:
        raise UserError(
            f"{run}: task {task}, sample {lacking[0].id} is not a question without an answer. Pass "
            "--task with a task whose file says `unanswered: true`."
        )
    answers: dict[str, dict[str, str]] = {}
    for s in samples:
        subject = s.groups["subject"]
        letters = LETTERS[: s.options]
        found = answer_letters(
            without_thought(s.prediction), letters, numbers=not numbered(s.prompt, letters)
        )
        answers.setdefault(subject, {})[s.id.removeprefix(f"{subject}-")] = "".join(found)
    if not answers:
        tasks = sorted({s.task for s in read_predictions(run)})
        raise UserError(f"{run}: no answers of task {task}. Its tasks: {', '.join(tasks)}. Pass --task NAME.")
    empty = sum(not letter for of in answers.values() for letter in of.values())
    atomic_io.write_text(output, json.dumps(answers, ensure_ascii=False, indent=1) + "\n")
    lines = [
        f"{output}: {len(samples):,} answers of {len(answers)} subjects, {empty:,} of them without a letter"
    ]
    if (len(answers), len(samples)) != (SUBJECTS, QUESTIONS):
        lines.append(f"warning: C-Eval's test split has {QUESTIONS:,} questions of {SUBJECTS} subjects")
    return "\n".join(lines)
