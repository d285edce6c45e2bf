"""What is written while training goes on is of the moment when it was handed over, or not there at all."""

from collections import OrderedDict
from functools import partial
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from core.checkpoint.async_writer import Background, begun, host_copy, plain_copy
from core.checkpoint.progress import Progress
from core.checkpoint.save import publish
from core.distributed.process_group import World
from core.host_memory import available_bytes
from core.provenance import manifest

ALONE = World(0, 1, 0, torch.device("cpu"))


def test_a_copy_shares_nothing_and_keeps_what_stood_twice_once() -> None:
    flat = torch.arange(8.0)
    weight = torch.nn.Parameter(torch.ones(2))
    tree = OrderedDict(part=flat[2:4], again=[flat[2:4]], weight=weight, plain=({"lr": 0.1}, "name", None))
    copied = host_copy(tree, plain_copy)
    flat.zero_()
    weight.data.zero_()
    assert isinstance(copied, OrderedDict)
    assert copied["part"].tolist() == [2, 3]
    assert copied["part"] is copied["again"][0]
    assert copied["part"].untyped_storage().nbytes() == 8, "not all that it was a part of"
    assert isinstance(copied["weight"], torch.nn.Parameter)
    assert copied["weight"].tolist() == [1, 1]
    assert copied["plain"] == ({"lr": 0.1}, "name", None)


def test_what_is_begun_is_done_once_and_raises_where_it_is_asked_for() -> None:
    asked = iter(range(10))
    result = begun(lambda: next(asked))
    assert (result(), result(), next(asked)) == (0, 0, 1)
    failed = begun(lambda: 1 // 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            failed()


def test_work_is_done_in_order_and_told_by_the_training_thread(tmp_path: Path) -> None:
    said: list[str] = []
    writer = Background(ALONE, said.append)
    for number in range(20):
        writer.later(partial(str, number), tmp_path)
    assert not said
    writer.wait()
    assert said == [str(number) for number in range(20)]


def test_what_fails_is_raised_and_nothing_follows_it(tmp_path: Path) -> None:
    def full() -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    writer = Background(ALONE, print)
    writer.later(full, tmp_path)
    writer.later((tmp_path / "after").touch, tmp_path)
    with pytest.raises(OSError, match="No space left on device"):
        writer.wait()
    with pytest.raises(OSError, match="No space left on device"):
        writer.check()
    assert not (tmp_path / "after").exists()


def test_copies_are_made_only_where_memory_has_room() -> None:
    writer = Background(ALONE, print)
    assert writer.has_memory(1)
    assert not writer.has_memory(available_bytes())
    assert not Background(ALONE).has_memory(1), "everything is done at once"


def test_the_memory_of_copies_serves_the_next_ones_when_they_are_written(tmp_path: Path) -> None:
    writer, go = Background(ALONE, print), Event()
    rows = torch.arange(6.0).reshape(2, 3)
    first = [writer.copy(rows), writer.copy(rows.T), writer.copy(rows)]
    writer.later(lambda: str(go.wait(60)), tmp_path)
    second = writer.copy(rows + 1)
    assert len({tensor.data_ptr() for tensor in [*first, second]}) == 4, "none is written yet"
    assert all(torch.equal(found, right) for found, right in zip(first, (rows, rows.T, rows), strict=True))
    go.set()
    writer.wait()
    again = [writer.copy(rows - 1) for _ in range(4)]
    known = {tensor.data_ptr() for tensor in (first[0], first[2], second)}
    assert len({tensor.data_ptr() for tensor in again}) == 4
    assert sum(tensor.data_ptr() in known for tensor in again) == 3
    assert all(torch.equal(tensor, rows - 1) for tensor in again)
    weight = torch.nn.Parameter(rows.clone())
    assert not writer.copy(weight).requires_grad


def test_what_is_kept_counts_as_room() -> None:
    writer = Background(ALONE, print)
    held = writer.copy(torch.zeros(2**24))
    need = int(0.8 * available_bytes()) + held.nbytes // 2
    assert not writer.has_memory(need)
    writer.settle()
    assert writer.has_memory(need)


def test_the_best_model_is_written_while_training_goes_on_and_is_that_of_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=16, **sizes))
    engine: Any = SimpleNamespace(module=model)
    said: list[str] = []
    writer, go, progress = Background(ALONE, said.append), Event(), Progress(step=3)
    write = safetensors.torch.save_file

    def slowly(*arguments: Any, **settings: Any) -> None:
        assert go.wait(60)
        write(*arguments, **settings)

    monkeypatch.setattr("safetensors.torch.save_file", slowly)
    target = tmp_path / "model"
    publish(engine, Mock(), target, progress, ALONE, config={}, inputs=dict, background=writer)
    assert not target.exists()
    with torch.no_grad():
        model.model.norm.weight.fill_(7.0)
    progress.step = 4
    go.set()
    writer.wait()
    written = safetensors.torch.load_file(target / "model.safetensors")["model.norm.weight"]
    assert written.tolist() == [1.0] * 8
    assert manifest.read(target)["counts"]["step"] == 3
    assert said[0].startswith(f"saved the model of step 3 as {target}; training waited ")
