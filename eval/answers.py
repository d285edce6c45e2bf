"""The answers in a run folder, each kept by what it depends on.

    predictions.jsonl, other-answers.jsonl ──Answers──▶ by key (model, prompt, generation settings)
    requests ──────────────────────────────────────────▶ a line for each sample that has an answer

An answer's key hashes what it depends on and nothing else: other metrics, groups or a corrected reference
need no new answer. A line of predictions.jsonl is a sample as its task describes it now, with its answer.
Lines of tasks that a run does not ask stay as they are if the same model answered all of them; everything
else (another model, another prompt, samples beyond a limit, a task that was never finished) goes to
other-answers.jsonl, where a later run finds it.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.provenance import atomic_io, manifest
from eval.models.base import Backend, continuation_of
from eval.sample import EvalSample
from eval.tasks.task import Request

NAME = "predictions.jsonl"
OTHERS = "other-answers.jsonl"
EARLIER = "earlier.json"
"""What the manifest said of tasks that a run in progress does not ask."""
NOT_ASKED = ("sample", "texts", "publication")
"""Fields of a Request that the model does not see."""
GIVEN = ("prediction", "by", "measured", "cut", "shots_left_out")
"""Fields of a sample that an answer fills in, besides the prompt, which may have been shortened."""
FIRST_FORMAT = (
    "task", "id", "prediction", "reference", "metrics", "source", "prompt", "by", "measured", "cut",
    "options", "glossary", "laws", "groups",
)  # fmt: skip
"""Fields of a sample that keys of the first format depended on."""

Line = dict[str, Any]


def answer_key(backend: Backend, request: Request) -> str:
    """A hash of everything that an answer depends on."""
    return _hash([backend.identity, _asked(request), _reference(request), backend.depends_on(request)])


def first_format_key(identity: Mapping[str, Any], request: Request) -> str:
    """The key that an answer had when keys depended on all of the sample."""
    sample = request.sample
    parts = [identity, request.prompt, request.max_new_tokens, request.stop, request.kind, request.options]
    return _hash([*parts, sample.task, sample.id, sample.model_dump(mode="json", include=set(FIRST_FORMAT))])


def answer_line(request: Request, answer: Mapping[str, Any], key: str) -> Line:
    """A line of predictions.jsonl. A document is its own prompt: it is stored once, as the reference."""
    line = request.sample.model_dump(mode="json", exclude_defaults=True)
    shortened = answer.get("shots_left_out") or answer.get("cut")
    prompt = answer["prompt"] if shortened else str(request.prompt)
    line |= {"prompt": prompt} if request.kind != "text" else {}
    given = {name: answer[name] for name in GIVEN if answer.get(name)}
    return line | {"prediction": "", "key": key} | given


def check_folder(folder: Path) -> None:
    """Raise UserError if a run may not write into `folder`: it holds anything but an evaluation."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"--output {folder} is a file. Choose a folder.")
    there = {path.name for path in folder.iterdir()} - {atomic_io.LOCK}
    ours = {name for name in there if name in (EARLIER, OTHERS) or Path(name).match("predictions*.jsonl")}
    step = _read(folder / manifest.NAME).get("step", "eval")
    if step != "eval" or (there and not ours) or "config.json" in there:
        raise UserError(
            f"--output {folder} holds something else than an evaluation ({', '.join(sorted(there)[:3])}), "
            "which a run would change. Choose another folder."
        )
    for raw in atomic_io.complete_lines(folder / NAME)[:1]:
        if '"key"' not in raw:
            raise UserError(
                f"--output {folder}: its {NAME} was not written by `python -m eval run`, which would replace "
                "it. Choose another folder."
            )


def begin(folder: Path, backend: Backend, tasks: set[str]) -> Line:
    """What stays of a finished run in this folder: `samples`, `inputs` and `limits` of its tasks that are not
    among `tasks`, if this model answered them. The folder is then no longer a finished run."""
    made = folder / manifest.NAME
    earlier: Line = {"samples": {}, "inputs": {}, "limits": {}}
    if tree := _read(made if made.exists() else folder / EARLIER):
        config, counts = tree.get("config", {}), tree.get("counts", {})
        if config.get("backend") == json.loads(json.dumps(backend.identity)):
            lines = [line.get("task") for _, line in _lines(folder / NAME)]
            samples = {
                t: n for t, n in counts.get("samples", {}).items() if t not in tasks and lines.count(t) == n
            }
            limits = {t: n for t, n in config.get("limits", {}).items() if t in samples}
            earlier = {
                "samples": samples,
                "inputs": tree.get("inputs", {}) if samples else {},
                "limits": limits,
            }
    saved = {
        "config": {"backend": backend.identity, "limits": earlier["limits"]},
        "counts": {"samples": earlier["samples"]},
        "inputs": earlier["inputs"],
    }
    atomic_io.write_text(folder / EARLIER, json.dumps(saved, ensure_ascii=False) + "\n")
    for name in (manifest.NAME, "report.html"):
        (folder / name).unlink(missing_ok=True)
    return earlier


def keep(
    folder: Path, backend: Backend, requests: Sequence[Request], staying: Collection[str], sort: bool = False
) -> int:
    """Write predictions.jsonl: the lines of the tasks `staying`, and one for each request that has an answer.
    Returns the number of all other answers, which go to other-answers.jsonl.

    Lines stay where they are, or else `sort` puts them in the order of the requests, whichever answer came
    first, so that sums round the same.
    """
    parts = sorted(folder.glob("predictions-*.jsonl"))
    lines = [line for file in (folder / NAME, folder / OTHERS, *parts) for line in _lines(file)]
    by_key = {line["key"]: (raw, line) for raw, line in reversed(lines)}
    by_sample: dict[tuple[str, str], list[tuple[str, Line]]] = {}
    for raw, line in lines:
        by_sample.setdefault((line["task"], line["id"]), []).append((raw, line))
    kept = {(line["task"], line["id"]): raw for raw, line in _lines(folder / NAME) if line["task"] in staying}
    used = set(kept.values())
    for request in requests:
        sample, key = (request.sample.task, request.sample.id), answer_key(backend, request)
        candidates = by_sample.get(sample, ())
        proven = (each for each in candidates if _is_first_format(backend, request, each[1]))
        if found := by_key.get(key) or next(proven, None):
            raw, line = found
            made = answer_line(request, line, key)
            kept[sample] = raw if made == line | {"key": key} else json.dumps(made, ensure_ascii=False)
            used.add(raw)
    places = {} if sort else {sample: place for place, sample in enumerate(by_sample)}
    written = sorted(kept, key=lambda sample: places.get(sample, len(places)))
    others = list(dict.fromkeys(raw for raw, _ in lines if raw not in used))
    if others:  # before the file in which they may have been until now
        atomic_io.write_text(folder / OTHERS, "".join(f"{raw}\n" for raw in others))
    atomic_io.write_text(folder / NAME, "".join(f"{kept[sample]}\n" for sample in written))
    if not others:
        (folder / OTHERS).unlink(missing_ok=True)
    for part in parts:
        part.unlink()
    return len(others)


def answered(folder: Path) -> set[tuple[str, str]]:
    """Task and id of each line of predictions.jsonl."""
    return {(line["task"], line["id"]) for _, line in _lines(folder / NAME)}


def _asked(request: Request) -> Line:
    """What the model is asked. What has its default is left out: a field that is new changes no old key."""
    defaults = Request._field_defaults
    fields = request._asdict().items()
    asked = {k: v for k, v in fields if k not in NOT_ASKED and (k not in defaults or v != defaults[k])}
    # The same text in the messages of a chat is another question.
    messages = {name: getattr(request.prompt, name, None) for name in ("system", "turns", "user")}
    return asked | ({"messages": messages} if messages["system"] or messages["turns"] else {})


def _reference(request: Request) -> str | None:
    """The reference, if its likelihood is what is asked."""
    return request.sample.reference if request.kind == "answer" else None


def _is_first_format(backend: Backend, request: Request, line: Line) -> bool:
    """Whether a line has the key of the first format for this request: the line says what its sample was. A
    prompt that was too long was then shortened in another way, and spaces at a prompt's end were seen."""
    if (
        line.get("cut")
        or continuation_of(request)
        or _asked(request).keys() - {"prompt", "max_new_tokens", "stop", "kind", "options"}
    ):
        return False
    fields = {k: v for k, v in line.items() if k in FIRST_FORMAT and k not in (*GIVEN, "prompt")}
    old = request._replace(sample=EvalSample.model_validate_json(json.dumps(fields | {"prediction": ""})))
    same = (_reference(old), backend.depends_on(old)) == (_reference(request), backend.depends_on(request))
    return same and line["key"] == first_format_key(backend.identity, old)


def _lines(file: Path) -> list[tuple[str, Line]]:
    """The lines with a valid sample and a key, as text and as objects."""
    found = []
    for raw in atomic_io.complete_lines(file):
        try:
            EvalSample.model_validate_json(raw)
            line = json.loads(raw)
        except ValueError:
            continue
        if isinstance(line.get("key"), str):
            found.append((raw, line))
    return found


def _read(file: Path) -> Line:
    try:
        tree = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _hash(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
