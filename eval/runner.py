"""Ask a model all questions of some tasks, so that a killed run goes on where it was.

    tasks ──requests──▶ those without an answer under their key ──backend──▶ predictions.jsonl ──▶ scores.json

A prediction's key covers what its answer depends on: the model, the prompt and the generation settings. A
line is kept only under a key that is asked for, so another model's answers are never taken for this one's.
Under torchrun every process asks its share and appends to a file of its own; the first puts them together.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.provenance import atomic_io, manifest
from eval.analysis import scoring
from eval.models.base import Backend, ask
from eval.ranks import Ranks
from eval.sample import read_predictions
from eval.tasks.task import Request


def run(
    requests: Sequence[Request],
    backend: Backend,
    folder: Path,
    inputs: Mapping[str, str],
    ranks: Ranks = Ranks(),  # noqa: B008
) -> None:
    """Complete `folder`/predictions.jsonl, then write scores.json and manifest.json, which names `inputs`.

    Raises UserError where requests failed; what was done is kept, and the same command asks the rest.
    """
    names = Counter((request.sample.task, request.sample.id) for request in requests)
    if twice := [f"{task}, sample {name}" for (task, name), n in names.items() if n > 1]:
        raise UserError(f"task {twice[0]}: this id stands more than once. Give each sample an id of its own.")
    file = folder / "predictions.jsonl"
    keys = [request_key(backend.identity, request) for request in requests]
    with ExitStack() as held:
        if ranks.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(atomic_io.lock(folder / ".lock", f"{folder}: it is being written already"))
            for name in (manifest.NAME, "report.html"):  # they tell of a finished run
                (folder / name).unlink(missing_ok=True)
            _keep(folder, set(keys))
        ranks.gather(None)
        done = _keys(file)
        missing = [i for i, key in enumerate(keys) if key not in done]
        if done and ranks.rank == 0:
            print(f"{len(requests) - len(missing)} of {len(requests)} answers are there already")
        missing.sort(key=lambda i: len(requests[i].prompt))  # so that every process has long and short ones
        part = file if ranks.size == 1 else folder / f"predictions-{ranks.rank}.jsonl"
        mine = sorted(missing[ranks.rank :: ranks.size])
        found = ranks.gather(_append(backend, requests, keys, mine, part))
        failed = [each for part_failed in found for each in part_failed]
        if ranks.rank:
            return
        _keep(folder, set(keys))
        if failed:
            raise UserError(
                f"{len(failed)} of {len(requests)} requests failed (first: {failed[0]}). "
                f"The other answers are in {file}; the same command asks the rest."
            )
        finish(folder, {"backend": backend.identity}, {**backend.inputs, **inputs})


def finish(folder: Path, config: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """Score the predictions, write scores.json and manifest.json, and say what is odd about the answers."""
    samples = read_predictions(folder)
    scores = scoring.score(samples)
    atomic_io.write_text(folder / "scores.json", json.dumps(scores, ensure_ascii=False, indent=1) + "\n")
    counts: dict[str, Any] = {
        "samples": {task: tree["n"] for task, tree in scores.items()},
        "cut_to_context": sum(s.cut > 0 for s in samples),
        "empty": sum(s.by.startswith("generation") and not s.prediction.strip() for s in samples),
        "by": dict(Counter(s.by for s in samples)),
    }
    manifest.write(folder, step="eval", config=config, inputs=inputs, counts=counts)
    print(f"{folder}\n{scoring.score_table(scores)}")
    if counts["cut_to_context"]:
        print(
            f"{counts['cut_to_context']} prompts were longer than the context: their left ends were cut off"
        )
    if counts["empty"]:
        print(f"{counts['empty']} answers are empty")
    if any("UNEQUAL" in by for by in counts["by"]):
        print(
            "warning: the letters of some questions are unequally many tokens, so that their likelihoods "
            "favour the shortest. Set `before_letter` or `by: generation` in the task file."
        )


def request_key(identity: dict[str, Any], request: Request) -> str:
    """The hash of all that an answer depends on."""
    sample = request.sample
    parts = [identity, request.prompt, request.max_new_tokens, request.stop, request.kind, request.options]
    parts += [sample.task, sample.id, sample.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _append(
    backend: Backend, requests: Sequence[Request], keys: Sequence[str], mine: Sequence[int], file: Path
) -> list[str]:
    """Ask `mine` and append the answers; what failed, and why."""
    asked = [requests[i] for i in mine]
    over = backend.cut(asked) if backend.cut else [0] * len(asked)
    failed = []
    with file.open("a", encoding="utf-8") as out:
        for place, answer in ask(backend, asked):
            request, key = asked[place], keys[mine[place]]
            if isinstance(answer, Exception):
                failed.append(f"{request.sample.task} {request.sample.id}: {answer}")
                continue
            line = request.sample.model_dump(exclude_defaults=True)
            # A document is its own prompt: it stands there once, as the reference.
            line |= {"prompt": request.prompt} if request.kind != "text" else {}
            line |= {"prediction": "", "key": key} | ({"cut": over[place]} if over[place] else {}) | answer
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
            out.flush()
        os.fsync(out.fileno())
    return failed


def _keep(folder: Path, keys: set[str]) -> None:
    """Put the whole lines that are asked for, each once, into predictions.jsonl, and remove other parts."""
    kept: dict[str, str] = {}
    parts = sorted(folder.glob("predictions-*.jsonl"))
    for file in [folder / "predictions.jsonl", *parts]:
        if not file.exists():
            continue
        *lines, _cut = file.read_text("utf-8", errors="replace").split("\n")  # a killed writer's last
        for line in lines:
            try:
                key = json.loads(line)["key"]
            except (ValueError, LookupError, TypeError):
                continue
            if key in keys:
                kept[key] = line
    atomic_io.write_text(folder / "predictions.jsonl", "".join(f"{line}\n" for line in kept.values()))
    for file in parts:
        file.unlink()


def _keys(file: Path) -> set[str]:
    with file.open(encoding="utf-8") as lines:
        return {json.loads(line)["key"] for line in lines}
