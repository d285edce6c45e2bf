"""Short runs of every kind of training have the losses and the weights that they had when frozen."""

from pathlib import Path

import pytest

from tests.frozen import inputs
from tests.frozen.pinned import check
from tests.frozen.work import LORA, Work, metrics, norms

TOLERANCE = 1e-5
"""Another processor rounds in another way."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    return Work(inputs.write_all(tmp_path_factory.mktemp("frozen")))


def compare(name: str, run: Path) -> None:
    found = {"metrics": metrics(run), "norms": norms(run / "model")}
    check("golden.json", name, found, tolerance=TOLERANCE)


def test_pretraining_from_random_weights(work: Work) -> None:
    compare("pretrain", work.pretrain("pretrain"))


def test_instruction_tuning_of_all_weights(work: Work) -> None:
    compare("sft", work.sft("sft"))


def test_instruction_tuning_of_an_adapter(work: Work) -> None:
    compare("sft, LoRA", work.sft("lora", *LORA))


def test_preference_tuning(work: Work) -> None:
    compare("dpo", work.dpo("dpo"))
