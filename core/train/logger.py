"""The log of a run: lines for people, numbers for programs, a progress bar on a terminal, a curve at the end.

    RUN/metrics.jsonl    one JSON object per logged step; that of step 0 has the base model's validation only
    RUN/log.txt          what was printed, with times
    RUN/tensorboard/     the numbers of metrics.jsonl for TensorBoard
    RUN/loss.png         training and validation loss

When a run resumes, the lines of steps that will be repeated are removed from `metrics.jsonl`.
"""

import json
import logging
import resource
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from core import rank_report
from core.config.schema import LoggingConfig
from core.errors import UserError
from core.provenance import atomic_io

T = TypeVar("T")

BAR_AFTER_S = 3.0
"""A piece of work that takes less gets no progress bar of its own."""
PLAIN_EVERY_S = 60.0
"""Seconds between two lines of progress where there is no terminal."""


class Log:
    """The log of the main process; on the others every method does nothing."""

    def __init__(
        self, folder: Path, config: LoggingConfig, resolved: Mapping[str, Any], *, active: bool
    ) -> None:
        """Open the files in `folder`; `resolved` is the configuration that is sent to Weights & Biases."""
        self.folder = folder
        rank_report.trace_folder = folder if folder.is_dir() else None
        self.active = active
        self.every_steps = config.every_steps
        self._tensorboard = config.tensorboard
        self._bar: Any = None
        self._board: Any = None
        self._metrics: Any = None
        self._wandb: Any = None
        if not active:
            return
        folder.mkdir(parents=True, exist_ok=True)
        rank_report.trace_folder = folder
        self._text = (folder / "log.txt").open("a", encoding="utf-8")
        if config.wandb_project:
            self._wandb = _open_wandb(config.wandb_project, folder, resolved)

    def start(self, step: int, steps: int) -> None:
        """Training starts after `step` of `steps`: remove what an interrupted run logged beyond it (after
        step 0 everything, because the base model is validated again), and show the progress bar."""
        if not self.active:
            return
        kept = [line for line in read_metrics(self.folder) if line["step"] <= step] if step else []
        atomic_io.write_text(self.folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
        self._metrics = (self.folder / "metrics.jsonl").open("a", encoding="utf-8")
        if self._tensorboard:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._board = SummaryWriter(self.folder / "tensorboard", purge_step=step + 1)
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=steps, initial=step, unit="step", dynamic_ncols=True)

    def line(self, text: str) -> None:
        """Print one line, and write it to log.txt."""
        if not self.active:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        else:
            print(text, flush=True)
        self._text.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        self._text.flush()

    def metrics(self, numbers: Mapping[str, float]) -> None:
        """Write one step's numbers; `step` is one of them."""
        if not self.active:
            return
        self._metrics.write(json.dumps(numbers) + "\n")
        self._metrics.flush()
        step = int(numbers["step"])
        rest = {name: value for name, value in numbers.items() if name != "step"}
        if self._board is not None:
            for name, value in rest.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(rest, step=step)

    def advance(self) -> None:
        """Count one step as done."""
        if self._bar is not None:
            self._bar.update()

    def track(self, work: Sequence[T], name: str) -> Iterator[T]:
        """The elements of `work`, with progress shown if they take long: a bar on a terminal, a line now and
        then elsewhere."""
        if not self.active:
            yield from work
        elif sys.stderr.isatty():
            from tqdm import tqdm

            yield from tqdm(work, desc=name, delay=BAR_AFTER_S, leave=False, dynamic_ncols=True)
        else:
            started = shown = time.monotonic()
            for done, each in enumerate(work):
                now = time.monotonic()
                if now - shown >= PLAIN_EVERY_S:
                    left_minutes = (now - started) * (len(work) - done) / done / 60
                    self.line(f"{name}: {done:,} of {len(work):,}, about {left_minutes:.1f} minutes left")
                    shown = now
                yield each

    def close(self, text: str) -> None:
        """Close everything, draw the curve, and log `text` as the last line."""
        if not self.active:
            return
        if self._bar is not None:
            self._bar.close()
        if self._metrics is not None:
            self._metrics.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()
        metrics = read_metrics(self.folder)
        draw_loss(metrics, self.folder / "loss.png")
        draw_tradeoff(metrics, self.folder / "forgetting.png")
        self._bar = None
        self.line(text)
        self._text.close()


def peak_memory_mib() -> float:
    """The most memory that this process took so far: of its GPU, else resident."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl, without a last line that a kill cut short."""
    path = folder / "metrics.jsonl"
    lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def draw_loss(metrics: list[dict[str, float]], file: Path) -> None:
    """Plot training and validation loss over tokens as a PNG, if a step was logged."""
    trained = [m for m in metrics if "loss" in m]
    if not trained:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    tokens, losses = [m["tokens"] for m in trained], [m["loss"] for m in trained]
    axes.plot(tokens, losses, lw=1, color="#7a9cc6", label="training")
    validated = [m for m in metrics if "validation_loss" in m]
    if validated:
        tokens, losses = [m["tokens"] for m in validated], [m["validation_loss"] for m in validated]
        axes.plot(tokens, losses, "o-", ms=4, color="#c0392b", label="validation")
        axes.annotate(
            f"{losses[-1]:.3f}",
            (tokens[-1], losses[-1]),
            xytext=(0, 8),
            textcoords="offset points",
            ha="right",
        )
    axes.set(xlabel="tokens trained", ylabel="loss (nats per token)", title=file.parent.name)
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file)


def draw_tradeoff(metrics: list[dict[str, float]], file: Path) -> None:
    """Plot the loss on general text against the loss on the domain as a PNG, if both were measured."""
    validated = [m for m in metrics if "general_loss" in m and "validation_loss" in m]
    if not validated:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    domain, general = ([m[name] for m in validated] for name in ("validation_loss", "general_loss"))
    axes.plot(domain, general, "-", lw=1, color="#7a9cc6")
    points = axes.scatter(domain, general, c=[m["tokens"] for m in validated], zorder=2)
    figure.colorbar(points, label="tokens trained", format=EngFormatter())
    labels = ("loss on the domain (nats per token)", "loss on general text (nats per token)")
    axes.set(xlabel=labels[0], ylabel=labels[1], title=file.parent.name)
    axes.grid(alpha=0.3)
    figure.savefig(file)


def quiet_libraries() -> None:
    """Keep other libraries' progress bars, notes about a missing GPU and deprecation warnings off the
    terminal."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # a kernel to download
    logging.getLogger("DeepSpeed").addFilter(lambda record: "accelerator to CPU" not in record.getMessage())
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")  # from DeepSpeed
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*deprecated")  # from peft
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def _open_wandb(project: str, folder: Path, resolved: Mapping[str, Any]) -> Any:
    try:
        import wandb
    except ImportError:
        raise UserError(
            "logging.wandb_project is set, but the package wandb is not installed (pip install wandb)."
        ) from None
    return wandb.init(project=project, dir=folder, name=folder.name, config=dict(resolved), resume="allow")
