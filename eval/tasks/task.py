"""Tasks as YAML files: data and a prompt template in, requests out; a new task needs no Python.

    configs/eval/NAME.yaml ──load──▶ TaskConfig ──requests──▶ Request (prompt, sample without its answer)

There are three layouts. `choice` reads CSV files of multiple-choice questions, one per subject, in the
layouts of C-Eval, CMMLU, MMLU (no header), KMMLU (answers from 1), tw-legal, and exams with several answers.
`jsonl` reads objects whose keys the template names. `text` reads whole documents, as objects or .txt files.
CSV is read with the csv module, so a cell `NA` is text, not a missing value. configs/eval/groups/NAME.yaml
names a group of tasks.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from core.config.loader import Config, load
from core.errors import UserError
from eval.metrics.metrics import check
from eval.sample import EvalSample, missing_field
from eval.tasks.json_samples import read_objects
from eval.tasks.prompt import Example, Shots, build, fill, ordered
from eval.tasks.resources import read_glossary, read_laws, terms_of
from eval.tasks.subjects import TASKS, read_subjects, subjects_file

LETTERS = "ABCDEFGH"
BY_POSITION = "bits-per-byte-by-position"
"""A metric of text tasks whose measurements other metrics do not need."""
SPLIT = re.compile(r"[_-](val|validation|dev|test|train)$")


class TaskConfig(Config):
    """One task."""

    layout: Literal["choice", "jsonl", "text"]
    """choice: CSV files of questions with options; jsonl: objects whose keys the template names; text: whole
    documents, as .txt files or objects."""
    data: str
    """File or glob pattern under the data folder (`ceval/val/*.csv`)."""
    prompt: str
    """Template. jsonl: keys of the object in braces, and {shots}; choice: {subject}, {shots} and {ask} (the
    question with its options); text: the document ({text} for a .txt file)."""
    by: Literal["generation", "log-likelihood"] | None = None
    """generation: the model writes an answer; log-likelihood: of the options (choice), the reference (jsonl)
    or the document (text). Default: log-likelihood for text, and for choice unless several answers may be
    right; otherwise generation."""
    question: str = "{question}\n{options}答案："
    """choice: template of a question with its options, up to the letter of the answer."""
    before_letter: str = ""
    """choice: text between the question and the letter, such as a space after `Answer:`."""
    shots: str | None = None
    """Files of few-shot examples; choice: matched to `data` by subject (`ceval/dev/*.csv`)."""
    shots_n: int = Field(5, ge=0)
    """Number of few-shot examples before each question; a question is never its own example."""
    shots_seed: int | None = None
    """Choose the examples at random with this seed, for each subject; default: the first of the file."""
    shots_as: Literal["text", "turns"] = "text"
    """text: at {shots} in the prompt; turns: with --chat, as earlier turns of the chat (text without it)."""
    system: str = ""
    """Template of a system text: with --chat the system message, without it at the start of the prompt."""
    subjects: str | None = None
    """choice: JSON file in C-Eval's format, subject to [English name, name in the prompt, category, and any
    subset that it also belongs to], under the data folder or configs/eval (`subjects/mmlu.json`)."""
    unanswered: bool = False
    """choice: the questions have no answers (C-Eval's test split); `submission` writes the model's."""
    several_answers: bool = False
    """choice, jsonl: questions may have more than one right option (`BCD`)."""
    options_in: str | None = None
    """jsonl: key of the text that has the options of a question (`A: …`), whose number `accuracy` needs."""
    reference: str = "answer"
    """jsonl: key of the reference answer."""
    source: str | None = None
    """jsonl: key of the source text, whose terms, numbers and claim references the answer should keep."""
    glossary: str | None = None
    """jsonl: CSV file under the data folder with rows of a source term and its accepted translations."""
    laws: str | None = None
    """jsonl: JSONL file under the data folder with `law`, `law_en` and `article` of all existing articles."""
    sources: str | None = None
    """jsonl: key of the number of sources in a question, for `source-citations`."""
    relevant_sources: str | None = None
    """jsonl: key of the list of the numbers of those that have the answer, from 1."""
    publication: str | None = None
    """jsonl: key of the publication number of the sample's patent, for `contamination`."""
    groups: dict[str, str] = Field({})
    """jsonl and text: breakdowns, name to key."""
    max_new_tokens: int = Field(256, ge=1)
    """Maximum length of a generated answer."""
    stop: tuple[str, ...] = ()
    """Strings that end a generated answer."""
    metrics: tuple[str, ...]
    """Metrics, by name (eval/metrics/metrics.py); comparisons rest on the first."""


class TaskGroup(Config):
    """A named group of tasks."""

    tasks: tuple[str, ...]
    """Names of the tasks."""


Kind = Literal["generation", "options", "answer", "text"]


class Request(NamedTuple):
    """A prompt for the model, and the sample that its answer completes."""

    prompt: str
    sample: EvalSample
    max_new_tokens: int
    stop: tuple[str, ...]
    kind: Kind = "generation"
    """Generate an answer, or measure the likelihood of the options, the reference or the prompt itself."""
    options: tuple[str, ...] = ()
    """Continuations of the prompt to choose from."""
    texts: tuple[str, ...] = ()
    """Texts from the data, without instructions and few-shot examples."""
    publication: str | None = None
    """Publication number of the patent that the sample comes from."""
    by_position: bool = False
    """text: measure the likelihood of each part of the text by its position, too."""


def load_tasks(names: str) -> list[tuple[str, TaskConfig, Path]]:
    """Name, task and file of each task in `A,B`: names of tasks or groups in configs/eval, or YAML files."""
    tasks: dict[str, tuple[str, TaskConfig, Path]] = {}
    for name in names.split(","):
        group = TASKS / "groups" / f"{name}.yaml"
        members = load(TaskGroup, group).tasks if group.is_file() else (name,)
        for member in members:
            task, config = load_task(member)
            tasks[task] = (task, config, task_file(member))
    return list(tasks.values())


def load_task(name: str) -> tuple[str, TaskConfig]:
    """Name and configuration of the task `NAME` in configs/eval, or of a YAML file."""
    file = task_file(name)
    if not file.is_file():
        known = sorted(each.stem for each in [*TASKS.glob("*.yaml"), *TASKS.glob("groups/*.yaml")])
        raise UserError(f"{file}: task file not found. Tasks and groups: {', '.join(known)}.")
    task = load(TaskConfig, file)
    try:
        check(task.metrics)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    return file.stem, task


def task_file(name: str) -> Path:
    """The YAML file of a task, in configs/eval or in a benchmark's folder there."""
    if name.endswith(".yaml"):
        return Path(name)
    own = TASKS / f"{name}.yaml"
    found = sorted(file for file in TASKS.glob(f"*/{name}.yaml") if file.parent.name != "groups")
    return found[0] if found and not own.is_file() else own


def requests(name: str, task: TaskConfig, root: Path) -> list[Request]:
    """All requests of a task with its data under `root`; UserError gives file, line or key."""
    if task.layout == "text" and (task.shots or task.system):
        raise UserError(f"task {name}: a text is read alone. Remove `shots` and `system`.")
    if task.layout != "text" and BY_POSITION in task.metrics:
        raise UserError(f"task {name}: `{BY_POSITION}` is of whole documents. Set `layout: text`.")
    if task.shots and task.shots_as == "text" and "{shots}" not in task.prompt:
        raise UserError(
            f"task {name}: `prompt` has no {{shots}}, where the examples of `shots` belong. Add it."
        )
    files = _files(root, task.data, name)
    return list((_choice if task.layout == "choice" else _objects)(name, task, root, files))


def data_files(name: str, task: TaskConfig, root: Path) -> list[Path]:
    """All data files of a task."""
    patterns = (task.data, task.shots, task.glossary, task.laws)
    files = [file for pattern in patterns if pattern for file in _files(root, pattern, name)]
    return [*files, *([subjects_file(task.subjects, root, name)] if task.subjects else [])]


def read_questions(file: Path, unanswered: bool = False) -> Iterator[dict[str, str]]:
    """Yield `question`, `A`, `B`, … and `answer` (letters) of each row, in any layout named above.

    `unanswered`: `answer` is empty, and `id` is that of the row, or else its number.
    """
    with file.open(encoding="utf-8-sig", newline="") as opened:
        rows = [(number, row) for number, row in enumerate(csv.reader(opened), 1) if any(row)]
    if not rows:
        raise UserError(f"{file}: the file has no questions.")
    header = [name.strip().casefold() for name in rows[0][1]]
    if "question" in header:
        if "answer" not in header and not unanswered:
            raise missing_field(f"{file}:1", "answer", header)
        rows = rows[1:]
    else:  # MMLU: no header
        header = ["question", *LETTERS[: len(header) - 2].lower(), "answer"]
    for number, row in rows:
        if len(row) < len(header):
            raise UserError(f"{file}: row {number} has {len(row)} cells, expected {len(header)}.")
        cells = dict(zip(header, row, strict=False))
        options = {letter: cells[letter.lower()] for letter in LETTERS if cells.get(letter.lower())}
        if unanswered:
            yield {"question": cells["question"], **options, "answer": "", "id": cells.get("id", str(number))}
            continue
        answer = cells["answer"].strip().upper()
        answer = answer.translate(str.maketrans("12345678", LETTERS))  # KMMLU counts from 1
        if not answer or not set(answer) <= options.keys():
            letters = ", ".join(options)
            raise UserError(f"{file}: row {number}: answer `{cells['answer']}` is not an option ({letters}).")
        yield {"question": cells["question"], **options, "answer": answer}


def _choice(name: str, task: TaskConfig, root: Path, files: list[Path]) -> Iterator[Request]:
    known = read_subjects(subjects_file(task.subjects, root, name), name) if task.subjects else None
    shot_files = {_subject(file): file for file in _files(root, task.shots, name)} if task.shots else {}
    kind: Kind = "options" if task.by != "generation" and not task.several_answers else "generation"
    if task.several_answers and task.by == "log-likelihood":
        raise UserError(
            f"task {name}: `by: log-likelihood` is not supported with `several_answers`. Remove `by`."
        )
    for file in files:
        subject = _subject(file)
        if task.shots and subject not in shot_files:
            raise UserError(f"task {name}: no few-shot file for subject {subject} in {root / task.shots}.")
        shown, groups = known.of(subject) if known else (subject.replace("_", " "), {"subject": subject})
        solved = [
            Example({"subject": shown, "ask": ask}, ask, task.before_letter + row["answer"])
            for row in (read_questions(shot_files[subject]) if shot_files else ())
            for ask in (_ask(task, row),)
        ]
        shots = Shots(ordered(solved, task.shots_seed, subject), task.shots_n, task.shots_as)
        if task.several_answers:
            groups["several_answers"] = "yes"
        for number, row in enumerate(read_questions(file, task.unanswered)):
            fields = {"subject": shown, "ask": _ask(task, row)}
            letters = [letter for letter in LETTERS if letter in row]
            sample = EvalSample(
                task=name,
                id=f"{subject}-{row.get('id', number)}",
                prediction="",
                reference=row["answer"],
                metrics=task.metrics,
                options=len(letters),
                groups=groups,
            )
            yield Request(
                build(task.prompt, fields, fields["ask"], shots, task.system, f"{file}"),
                sample,
                task.max_new_tokens,
                task.stop,
                kind,
                options=tuple(task.before_letter + letter for letter in letters),
                texts=("\n".join([row["question"], *(row[x] for x in letters)]), row["question"]),
            )


def _ask(task: TaskConfig, row: dict[str, str]) -> str:
    options = "".join(f"{letter}. {row[letter]}\n" for letter in LETTERS if letter in row)
    return fill(task.question, {"question": row["question"], "options": options}, "`question`")


def _objects(name: str, task: TaskConfig, root: Path, files: list[Path]) -> Iterator[Request]:
    kind: Kind = (
        "text" if task.layout == "text" else "answer" if task.by == "log-likelihood" else "generation"
    )
    solved = [
        Example(fields, fill(task.prompt, {**fields, "shots": ""}, location), fields[task.reference])
        for file in (_files(root, task.shots, name) if task.shots else ())
        for location, fields in _fields(file, (task.reference,))
    ]
    shots = Shots(ordered(solved, task.shots_seed, name), task.shots_n, task.shots_as)
    glossary = read_glossary(root / task.glossary) if task.glossary else {}
    laws = read_laws(root / task.laws) if task.laws else {}
    used = {*re.findall(r"\{(\w+)\}", task.prompt), task.reference}
    wanted = [*(() if kind == "text" else (task.reference,)), task.source, task.publication, task.options_in]
    wanted += [task.sources, task.relevant_sources]
    for file in files:
        for number, (location, fields) in enumerate(_fields(file, (*wanted, *task.groups.values()))):
            text = fill(task.prompt, ({"shots": ""} if task.shots else {}) | fields, location)
            prompt = build(task.prompt, fields, text, shots, task.system, location)
            sample = EvalSample(
                task=name,
                id=fields.get("id", f"{file.stem}-{number}"),
                prediction="",
                reference=text if kind == "text" else fields[task.reference],
                metrics=task.metrics,
                source=fields[task.source] if task.source else "",
                glossary=terms_of(fields.get(task.source or task.reference, ""), glossary),
                laws=laws,
                options=_options(task, fields),
                **_sources(task, fields, location),
                groups={group: fields[key] for group, key in task.groups.items()}
                | ({"several_answers": "yes"} if task.several_answers else {}),
            )
            yield Request(
                prompt,
                sample,
                task.max_new_tokens,
                task.stop,
                kind,
                texts=tuple(value for key, value in fields.items() if key in used),
                publication=fields[task.publication] if task.publication else None,
                by_position=BY_POSITION in task.metrics,
            )


def _sources(task: TaskConfig, fields: dict[str, str], location: str) -> dict[str, Any]:
    """The number of sources of a question, and the numbers of the relevant ones, if the task names them."""
    found: dict[str, Any] = {}
    for name, key in (("sources", task.sources), ("relevant_sources", task.relevant_sources)):
        if key is None:
            continue
        try:
            value = json.loads(fields[key])
            numbers = [value] if name == "sources" else list(value)
            assert all(type(number) is int and number >= 0 for number in numbers)
        except (ValueError, TypeError, AssertionError):
            kind = "a number" if name == "sources" else "a list of numbers"
            raise UserError(f"{location}: `{key}` is {fields[key][:80]}, not {kind}.") from None
        found[name] = value if name == "sources" else tuple(numbers)
    return found


def _options(task: TaskConfig, fields: dict[str, str]) -> int | None:
    """The number of options of a question of a jsonl task: given, or those that its text lists."""
    if "options_n" in fields or task.options_in is None:
        return int(fields["options_n"]) if "options_n" in fields else None
    place, n = 0, 0
    for letter in LETTERS:
        found = re.compile(rf"(?<![A-Za-z]){letter}\s*[:：.．、)）]").search(fields[task.options_in], place)
        if not found:
            break
        place, n = found.end(), n + 1
    named = [LETTERS.index(letter) + 1 for letter in fields[task.reference] if letter in LETTERS]
    return max(n, *named, 0) or None


def _fields(file: Path, wanted: Iterable[str | None]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield location and fields (as text) of each object in a file; a .txt file is one object."""
    if file.suffix == ".txt":
        objects: Iterable[tuple[str, dict[str, Any]]] = [(str(file), {"text": file.read_text("utf-8")})]
    else:
        objects = read_objects(file)
    keys = [key for key in wanted if key is not None]
    for location, tree in objects:
        fields = {key: value if isinstance(value, str) else json.dumps(value) for key, value in tree.items()}
        if missing := [key for key in keys if key not in fields]:
            raise missing_field(location, missing[0], fields)
        yield location, fields


def _files(root: Path, pattern: str, name: str) -> list[Path]:
    files = sorted(root.glob(pattern))
    if not files:
        raise UserError(f"task {name}: no file matches {root / pattern}. Set the data folder with --data.")
    return files


def _subject(file: Path) -> str:
    return SPLIT.sub("", file.stem)
