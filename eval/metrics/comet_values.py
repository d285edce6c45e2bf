"""COMET and xCOMET (Rei et al. 2020, 2022; Guerreiro et al. 2024): a learned metric of translations.

    samples without a value ──comet_worker.py, in another environment──▶ RUN/measured-comet.jsonl
    read_predictions(RUN) ──where the texts have not changed──▶ `measured` ──▶ metric `comet`

The package unbabel-comet and this project need different versions of the same packages, so that it has an
environment of its own. A value is kept under `comet|MODEL@VERSION`, which is also the score's name: values of
different models never meet in one score, and have no score in common that could be compared.
"""

import hashlib
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path

import numpy as np

from core.errors import UserError
from core.provenance import atomic_io
from eval.metrics.answers import without_thought
from eval.metrics.measure import Measure, mean, ratio
from eval.sample import EvalSample, read_predictions, texts_hash

NAME = "measured-comet.jsonl"
WORKER = Path(__file__).with_name("comet_worker.py")
PROBE = "from importlib import metadata; print(metadata.version('unbabel-comet'))"
SHOWN_LINES = 5
"""Last lines of the worker's output that an error shows."""
CHUNK = 1 << 24


def comet(samples: Sequence[EvalSample], model: str = "") -> list[Measure]:
    """The mean of the values that were measured with one model; no score if no sample has a source.

    Raises UserError if a sample has no value, or if several models measured and `model` names none of them.
    """
    if not any(s.source for s in samples):
        return [Measure("comet", np.zeros((len(samples), 2)), ratio, "no source")]
    task = samples[0].task
    names = sorted({name for s in samples for name in s.measured if name.startswith("comet|")})
    fitting = [name for name in names if f"{name}@".startswith(f"comet|{model}@" if model else "comet|")]
    if len(fitting) > 1:
        raise UserError(f"task {task}: measured by {', '.join(fitting)}. Pass one of them to --metrics.")
    if lacking := [s for s in samples if not fitting or fitting[0] not in s.measured]:
        others = f" (it was measured by {', '.join(names)})" if names and not fitting else ""
        raise UserError(
            f"task {task}, sample {lacking[0].id}: no COMET value{f' of {model}' if model else ''} for this "
            f"answer{others}. Run `python -m eval comet RUN --python PYTHON`, with the Python of an "
            "environment that has unbabel-comet."
        )
    return [mean(fitting[0], [s.measured[fitting[0]] for s in samples], fitting[0])]


def measure(run: Path, python: str, model: str, tasks: Sequence[str], settings: Mapping[str, int]) -> str:
    """Measure the samples of `tasks` (by default those with a source) that have no value of `model` yet, and
    add the values to RUN/measured-comet.jsonl; returns a message.

    `settings` are the worker's options. Raises UserError if the environment or the samples do not allow it,
    or if the worker fails; values that it gave before are kept.
    """
    for option, least in (("batch-size", 1), ("gpus", 0)):
        if settings[option] < least:
            raise UserError(f"--{option} {settings[option]}: must be at least {least}.")
    if not (run / "predictions.jsonl").is_file():
        raise UserError(f"{run}: not a run folder: it has no predictions.jsonl.")
    interpreter = find_python(python)
    model, identity = _identity(model)
    name = f"comet|{identity}@{_version(interpreter)}"
    with atomic_io.lock(run / atomic_io.LOCK, f"{run}: another process is writing to it"):
        samples = _chosen(run, tasks)
        missing = [s for s in samples if name not in s.measured]
        # A model that can do without references measures something else without them.
        for group in ([s for s in missing if s.reference], [s for s in missing if not s.reference]):
            if group:
                _measure(group, run / NAME, name, [interpreter, str(WORKER)], {"model": model, **settings})
    there = f" ({len(samples) - len(missing):,} were there)" if len(missing) < len(samples) else ""
    return f"{run / NAME}: {len(samples):,} values{there}\npython -m eval score {run} --metrics '{name}'"


def find_python(python: str) -> str:
    """The path of an interpreter; UserError if there is none."""
    if found := shutil.which(python):
        return found
    if found := shutil.which(Path(python) / "bin" / "python"):
        raise UserError(f"--python {python}: a folder. Pass {found}.")
    raise UserError(f"--python {python}: not found, or not a program.")


def _version(interpreter: str) -> str:
    """The version of unbabel-comet in the interpreter's environment."""
    try:
        done = subprocess.run([interpreter, "-c", PROBE], capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError(f"--python {interpreter}: cannot be started ({error.strerror}).") from None
    if "PackageNotFoundError" in done.stderr:
        raise UserError(
            f"--python {interpreter}: unbabel-comet is not installed there. Install it in an environment of "
            f"its own: {interpreter} -m pip install unbabel-comet."
        )
    if done.returncode or not done.stdout.strip():
        said = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
        raise UserError(f"--python {interpreter}: not a Python with unbabel-comet ({said[0]}).")
    return done.stdout.split()[-1]


def _identity(model: str) -> tuple[str, str]:
    """What the worker loads, and the name of its scores: of the hub the model's name, of a file its own name
    and a hash of it and of the model's settings."""
    file = Path(model)
    if file.is_dir():
        file /= "checkpoints/model.ckpt"
    elif file.suffix != ".ckpt":
        return model, model
    if not file.is_file():
        raise UserError(f"--model {model}: {file} not found.")
    digest = hashlib.sha256()
    for part in (file, file.absolute().parents[1] / "hparams.yaml"):
        if part.is_file():
            with part.open("rb") as opened:
                while chunk := opened.read(CHUNK):
                    digest.update(chunk)
    return str(file.absolute()), f"{file.name}:{digest.hexdigest()[:12]}"


def _chosen(run: Path, tasks: Sequence[str]) -> list[EvalSample]:
    """The samples of the tasks; UserError if a task does not exist, or lacks sources or some references."""
    found: dict[str, list[EvalSample]] = {}
    for s in read_predictions(run):
        found.setdefault(s.task, []).append(s)
    if unknown := [task for task in tasks if task not in found]:
        raise UserError(f"--tasks {unknown[0]}: not in {run}. Its tasks: {', '.join(found)}.")
    names = list(dict.fromkeys(tasks)) or [t for t, each in found.items() if any(s.source for s in each)]
    if not names:
        raise UserError(f"{run}: no task has samples with a `source`, which COMET needs.")
    for task in names:
        if lacking := [s for s in found[task] if not s.source]:
            raise UserError(f"task {task}, sample {lacking[0].id}: no `source`, which COMET needs.")
        without = [s for s in found[task] if not s.reference]
        if 0 < len(without) < len(found[task]):
            raise UserError(
                f"task {task}, sample {without[0].id}: no reference, but other samples have one. Their "
                "values could not be compared."
            )
    return [s for task in names for s in found[task]]


def _measure(
    samples: Sequence[EvalSample],
    file: Path,
    name: str,
    command: Sequence[str],
    options: Mapping[str, object],
) -> None:
    """Run the worker on samples and add their values to `file`; UserError if it fails or a value is no
    number. The values before the failure are kept."""
    with tempfile.TemporaryDirectory() as folder:
        given, taken = Path(folder) / "samples.jsonl", Path(folder) / "scores.jsonl"
        given.write_text("".join(f"{json.dumps(_texts(s))}\n" for s in samples), "utf-8")
        worker = [*command, str(given), str(taken), *(f"--{key}={value}" for key, value in options.items())]
        code, said = _run(worker)
        parts = [json.loads(line) for line in atomic_io.complete_lines(taken)]
    scores = [float(score) for part in parts for score in part]
    if len(scores) > len(samples):
        raise UserError(f"COMET gave {len(scores)} scores for {len(samples)} samples, none of which is kept.")
    pairs = list(zip(samples, scores, strict=False))
    _add(file, [_line(s, name, score) for s, score in pairs if math.isfinite(score)])
    if code:
        last = "".join(f"\n  {line}" for line in said)
        raise UserError(
            f"COMET failed (exit code {code}); {len(scores)} values are kept. Its last words:{last}"
        )
    if len(scores) < len(samples):
        raise UserError(f"COMET gave {len(scores)} scores for {len(samples)} samples.")
    if wrong := [(s, score) for s, score in pairs if not math.isfinite(score)]:
        s, score = wrong[0]
        raise UserError(
            f"task {s.task}, sample {s.id}: COMET gave {score} (so for {len(wrong)} of {len(samples)} "
            "samples). The other values are kept."
        )


def _texts(s: EvalSample) -> dict[str, str]:
    """A sample with COMET's names, without the thought before the answer."""
    texts = {"src": s.source, "mt": without_thought(s.prediction)}
    return texts | ({"ref": s.reference} if s.reference else {})


def _run(worker: Sequence[str]) -> tuple[int, list[str]]:
    """The exit code of a program, and its last lines; all that it says is passed on to stderr at once."""
    last: deque[str] = deque(maxlen=SHOWN_LINES)
    with subprocess.Popen(worker, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout
        # newline="": a progress bar ends its lines with a carriage return
        for line in TextIOWrapper(process.stdout, "utf-8", "replace", newline=""):
            sys.stderr.write(line)
            sys.stderr.flush()
            if line.strip():
                last.append(line.strip())
    return process.returncode, list(last)


def _line(s: EvalSample, name: str, value: float) -> str:
    line = {"task": s.task, "id": s.id, "texts": texts_hash(s), "measure": name, "value": value}
    return json.dumps(line, ensure_ascii=False)


def _add(file: Path, lines: Iterable[str]) -> None:
    """Add lines to a file that is complete or as it was."""
    atomic_io.write_text(file, "".join(f"{line}\n" for line in [*atomic_io.complete_lines(file), *lines]))
