"""LoRA adapters, 4-bit weights, restored deltas, predictions of other programs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import UserError
from eval.models.hf import identity, inputs, open_model
from eval.models.loglikelihood import log_likelihood
from eval.models.replay import open_backend
from eval.runner import run as run_all
from eval.sample import EvalSample, read_predictions
from eval.tasks.task import Request
from tests.conftest import run
from tests.eval.models.tiny import write_jsonl, write_model

PAIRS = [("一种装置", "其特征"), ("a device", " wherein"), ("x", "y")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, an adapter that changes it much, and the two merged by peft."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("place")
    write_model(folder / "base")
    model = AutoModelForCausalLM.from_pretrained(folder / "base")
    tuned = get_peft_model(model, LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj", "down_proj"]))
    torch.manual_seed(1)
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    tuned.peft_config["default"].base_model_name_or_path = str(folder / "base")
    tuned.save_pretrained(folder / "adapter")
    tuned.merge_and_unload().save_pretrained(folder / "merged")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / "merged" / name).write_bytes((folder / "base" / name).read_bytes())
    return folder


def nats(path: Path, **settings: Any) -> list[float]:
    found = sorted(log_likelihood(open_model(str(path), **settings), PAIRS), key=lambda each: each[0])
    return [each.nats for _, each in found if not isinstance(each, Exception)]


def test_an_adapter_gives_what_it_gives_merged_and_its_base_stays(place: Path) -> None:
    before = (place / "base/model.safetensors").read_bytes()
    assert nats(place / "adapter") == pytest.approx(nats(place / "merged"), abs=1e-3)
    assert nats(place / "adapter") != pytest.approx(nats(place / "base"), abs=0.1)
    assert (place / "base/model.safetensors").read_bytes() == before
    named = {Path(name).parent.name + "/" + Path(name).name for name in inputs(str(place / "adapter"))}
    assert {"base/model.safetensors", "adapter/adapter_model.safetensors", "base/tokenizer.json"} <= named


def test_another_base_under_the_same_adapter_is_another_model(place: Path) -> None:
    first = identity(inputs(str(place / "adapter")))
    weights = place / "base/model.safetensors"
    kept = weights.read_bytes()
    write_model(place / "base", seed=5)
    assert identity(inputs(str(place / "adapter"))) != first
    weights.write_bytes(kept)
    assert identity(inputs(str(place / "adapter"))) == first


def test_a_missing_base_is_reported(place: Path, tmp_path: Path) -> None:
    config = json.loads((place / "adapter/adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "gone"}))
    with pytest.raises(UserError, match="base_model_name_or_path is gone, which has no weights"):
        inputs(str(tmp_path))


def test_an_adapter_of_another_base_is_refused(place: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "wide", width=64)
    config = json.loads((place / "adapter/adapter_config.json").read_text())
    (tmp_path / "adapter").mkdir()
    changed = json.dumps(config | {"base_model_name_or_path": str(tmp_path / "wide")})
    (tmp_path / "adapter/adapter_config.json").write_text(changed)
    (tmp_path / "adapter/adapter_model.safetensors").write_bytes(
        (place / "adapter/adapter_model.safetensors").read_bytes()
    )
    with pytest.raises(UserError, match="made for other weights"):
        open_model(str(tmp_path / "adapter"))


def test_four_bits_are_near_the_full_weights(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    write_model(tmp_path, width=64)
    full, four = nats(tmp_path), nats(tmp_path, four_bit=True)
    assert four != full
    assert four == pytest.approx(full, rel=0.3)


def test_a_restored_delta_is_the_tuned_model(place: Path, tmp_path: Path) -> None:
    base, delta, back = place / "base", tmp_path / "delta", tmp_path / "back"
    made = run("delta", "make", "--base", base, "--target", place / "merged", "--delta", delta)
    assert made.returncode == 0, made.stderr
    done = run("delta", "apply", "--base", base, "--delta", delta, "--target", back)
    assert done.returncode == 0, done.stderr
    assert nats(back) == nats(place / "merged")


def requests(n: int = 3) -> list[Request]:
    samples = [
        EvalSample(task="t", id=str(i), prediction="", reference="B", metrics=("accuracy",), options=4)
        for i in range(n)
    ]
    return [Request("?", sample, 4, (), "options", tuple("ABCD")) for sample in samples]


def test_predictions_of_others_are_scored_as_our_own(tmp_path: Path) -> None:
    theirs = [
        {"task": "t", "id": str(i), "prediction": f"答案是 {letter}", "reference": "B"}
        for i, letter in enumerate("BAB")
    ]
    backend = open_backend(write_jsonl(tmp_path / "theirs.jsonl", *theirs))
    run_all(requests(), backend, tmp_path / "out", {})
    assert [s.prediction for s in read_predictions(tmp_path / "out")] == [t["prediction"] for t in theirs]
    (score,) = json.loads((tmp_path / "out/scores.json").read_text())["t"]["scores"]
    assert score["value"] == pytest.approx(2 / 3)
    # The backend has no log-probabilities, and the table says so.
    assert "by generation, as the model gives no log-probabilities" in score["signature"]
    with pytest.raises(UserError, match=r"1 of 4 requests failed \(first: t 3: no prediction in "):
        run_all(requests(4), backend, tmp_path / "out", {})


def test_a_copy_answers_with_its_source(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"q": "a b", "answer": "c"}\n{"q": "d", "answer": "d"}\n', "utf-8")
    (tmp_path / "echo.yaml").write_text(
        "layout: jsonl\ndata: x.jsonl\nprompt: 'Say {q}'\nsource: q\nmetrics: [chrf]\n", "utf-8"
    )
    task, out = tmp_path / "echo.yaml", tmp_path / "out"
    done = run("eval", "run", "--copy", "--tasks", task, "--data", tmp_path, "--output", out)
    assert done.returncode == 0, done.stderr
    lines = (out / "predictions.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == ["a b", "d"]
