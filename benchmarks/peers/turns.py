"""Steps of a training run, taken in turns with other programs: lines of JSON in and out.

    {...}          the settings, by `settings`
    {"steps": n}   take n steps; the answer has the seconds they took and what was read so far. With
                   {"profile": true} it has the CPU seconds of each kind of operation, which slows the steps
    {"steps": 0}   train to the end; the answer says that the model is saved

Both sides of a comparison use this module, each in its own environment: it needs the standard library, and
torch to profile.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

KINDS = {
    "products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "attention": ("aten::_scaled_dot_product", "aten::_flash_attention"),
}
"""What torch calls the operations of a kind."""


class Turns:
    """One program's side. Standard output is for answers: what it prints goes to standard error."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._imports_mib = 0.0
        self._left = self._read = self._trained = self._filled = 0
        self._start = self._cpu_start = 0.0
        self._profiler: Any = None

    def settings(self) -> Any:
        """The first line that comes in. Peak memory is counted from here on: import everything before."""
        self._imports_mib = _peak_mib()
        return json.loads(sys.stdin.readline())

    def begin(self) -> None:
        """Everything is loaded; the first step comes next."""
        self._answer({})
        self._wait()

    def count(self, read: int, filled: int, trained: int) -> None:
        """A batch has `read` positions; `filled` of them hold text, `trained` are labels."""
        self._read, self._filled = self._read + read, self._filled + filled
        self._trained += trained

    def step(self) -> None:
        """A step has been taken; after the last one of a turn, wait for the next turn."""
        self._left -= 1
        if self._left == 0:
            seconds = time.perf_counter() - self._start
            cpu_seconds = time.process_time() - self._cpu_start
            kinds = {}
            if self._profiler:
                self._profiler.stop()
                kinds = {"kinds": _by_kind(self._profiler)}
                self._profiler = None
            self._answer(
                {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mib": _peak_mib() - self._imports_mib}
                | {"read": self._read, "filled": self._filled, "trained": self._trained}
                | kinds
            )
            self._wait()

    def end(self) -> None:
        """The model is saved."""
        self._answer({})

    def _answer(self, found: Mapping[str, Any]) -> None:
        print(json.dumps(found), file=self._answers, flush=True)

    def _wait(self) -> None:
        asked = json.loads(sys.stdin.readline())
        self._left = asked["steps"]
        if asked.get("profile"):
            from torch.profiler import ProfilerActivity, profile

            self._profiler = profile(activities=[ProfilerActivity.CPU])
            self._profiler.start()
        self._start, self._cpu_start = time.perf_counter(), time.process_time()


def follow_trainer(turns: Turns) -> None:
    """Have transformers' Trainer, and what inherits from it, take its steps in turns."""
    from transformers import DefaultFlowCallback, Trainer

    take_step, end_step = Trainer.training_step, DefaultFlowCallback.on_step_end

    def counted(trainer: Any, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        ids, labels = inputs["input_ids"], inputs["labels"][:, 1:]
        filled = int((ids != trainer.processing_class.pad_token_id).sum())
        turns.count(ids.numel(), filled, int((labels != -100).sum()))
        return take_step(trainer, model, inputs, *rest, **more)

    def begun(*_: Any, **__: Any) -> None:
        turns.begin()

    def ended(*arguments: Any, **more: Any) -> Any:
        control = end_step(*arguments, **more)
        turns.step()
        return control

    Trainer.training_step = counted
    DefaultFlowCallback.on_train_begin, DefaultFlowCallback.on_step_end = begun, ended


def _by_kind(profiler: Any) -> dict[str, float]:
    """CPU seconds of matrix products and of attention, forward and backward, by torch.profiler."""
    seconds = dict.fromkeys(KINDS, 0.0)
    for operation in profiler.key_averages():
        for kind, names in KINDS.items():
            if operation.key.startswith(names):
                seconds[kind] += operation.self_cpu_time_total / 1e6
    return seconds


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
