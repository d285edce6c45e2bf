"""`make pretrain` as a newcomer runs it: what it leaves, and that the model is worth more than counting
characters."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch

from core.config.loader import load
from data.packing.document_text import layout
from data.packing.train_val_split import split_of
from data.record_store import read_records
from pretrain.config import PretrainConfig
from tests.conftest import ROOT, run

END = "\x03"
CODE_POINTS = 0x110000


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> PretrainConfig:
    """The two halves of `make pretrain`, with the shipped configuration, in folders of their own."""
    folder = tmp_path_factory.mktemp("make-pretrain")
    overrides = [
        f"run_dir={folder / 'run'}",
        f"data.output_dir={folder / 'corpus'}",
        "validation_tokens=null",
    ]
    for part in (["--prepare"], []):
        done = run("pretrain", *part, *overrides, timeout=1200)
        assert done.returncode == 0, done.stdout + done.stderr
    return load(PretrainConfig, ROOT / "configs/pretrain/tiny.yaml", overrides)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_run_leaves_a_model_a_curve_and_metrics(finished: PretrainConfig) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(finished.run_dir)
    assert (folder / "loss.png").stat().st_size > 5_000
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert metrics[0]["step"] == 0
    assert metrics[0].keys() >= {"tokens", "validation_loss"}, "the base model"
    for line in metrics[1:]:
        assert {"step", "tokens", "loss", "learning_rate", "gradient_norm", "tokens_per_s"} <= line.keys()
    validated = [line["validation_loss"] for line in metrics if "validation_loss" in line]
    assert validated[-1] < 0.8 * validated[0], "validation loss clearly falls"
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    prompt = torch.tensor(
        [[tokenizer.bos_token_id, *tokenizer("一种", add_special_tokens=False)["input_ids"]]]
    )
    written = tokenizer.decode(model.generate(prompt, max_new_tokens=30, do_sample=False)[0])
    assert "一种" in written


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_model_beats_a_character_3_gram_model_on_held_out_inventions(finished: PretrainConfig) -> None:
    texts: dict[str, list[str]] = {"train": [], "validation": []}
    for record in read_records(Path(finished.data.output_dir) / "clean"):
        texts[split_of(record, finished.data.pack)].append(layout(record, finished.data.pack))
    counted = WittenBell(3, texts["train"])
    utf8_bytes = sum(len(text.encode()) for text in texts["validation"])
    baseline = sum(map(counted.bits, texts["validation"])) / utf8_bytes

    lines = (Path(finished.run_dir) / "metrics.jsonl").read_text().splitlines()
    model = json.loads(lines[-1])["validation_bits_per_byte"]
    print(f"bits per byte on held-out inventions: model {model:.4f}, character 3-gram {baseline:.4f}")
    assert model < baseline


class WittenBell:
    """A character n-gram model that backs off to shorter contexts (Witten and Bell, 1991, interpolated).

    P(c | h) = (n(h c) + t(h) P(c | h')) / (n(h) + t(h)), where h' is h without its first character and t(h)
    counts the different characters seen after h; below the single character stands a uniform choice among all
    code points.
    """

    def __init__(self, order: int, texts: Iterable[str]) -> None:
        self.order = order
        self.grams: list[Counter[str]] = [Counter() for _ in range(order)]
        for text in texts:
            for history, character in self._events(text):
                for length in range(order):
                    self.grams[length][history[len(history) - length :] + character] += 1
        self.total = [Counter[str]() for _ in range(order)]
        self.types = [Counter[str]() for _ in range(order)]
        for length, grams in enumerate(self.grams):
            for gram, n in grams.items():
                self.total[length][gram[:-1]] += n
                self.types[length][gram[:-1]] += 1

    def bits(self, text: str) -> float:
        """The bits that the text and its end cost."""
        return -sum(
            math.log2(self._probability(history, character)) for history, character in self._events(text)
        )

    def _events(self, text: str) -> Iterator[tuple[str, str]]:
        padded = END * (self.order - 1) + text + END
        for i in range(self.order - 1, len(padded)):
            yield padded[i - self.order + 1 : i], padded[i]

    def _probability(self, history: str, character: str) -> float:
        probability = 1 / CODE_POINTS
        for length in range(self.order):
            context = history[len(history) - length :]
            total, types = self.total[length][context], self.types[length][context]
            if total:
                seen = self.grams[length][context + character]
                probability = (seen + types * probability) / (total + types)
        return probability


def test_the_baseline_is_a_probability_model_and_follows_its_formula() -> None:
    model = WittenBell(2, ["ab"])
    # After "a" only "b" was seen, once: (1 + 1 * P(b)) / 2. Three characters were seen, END among them.
    unigram = (1 + 3 / CODE_POINTS) / 6
    assert model._probability("a", "b") == pytest.approx((1 + unigram) / 2)
    assert sum(model._probability("a", chr(code)) for code in range(CODE_POINTS)) == pytest.approx(1)
