"""Files of whole numbers and text are bit for bit what they were when they were frozen, on every machine."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.delta.models import Arrays, save
from tests.frozen import inputs
from tests.frozen.contents import hashes
from tests.frozen.pinned import check
from tests.frozen.work import Work


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    return Work(inputs.write_all(tmp_path_factory.mktemp("formats")))


def test_a_corpus_of_made_up_patents_from_records_to_tokens(work: Work) -> None:
    check("formats.json", "corpus", hashes(work.corpus("corpus"), work.folder))


def test_chats_made_of_a_corpus_and_made_up_ones(work: Work, tmp_path: Path) -> None:
    corpus = work.folder / "corpus"
    if not corpus.exists():
        work.corpus("corpus")
    work.do("data", "build", f"corpus={corpus / 'decontaminate'}", f"output_dir={tmp_path / 'built'}")
    work.do("data", "everyday", "--stories", "10", "--chats", "10", "--output", tmp_path / "everyday")
    found = {name: hashes(tmp_path / name, work.folder) for name in ("built", "everyday")}
    check("formats.json", "made chats", found)


@pytest.mark.parametrize(
    ("template", "length"), [("patent-llama", 48), ("chatml", 48), ("alpaca", 160), ("llama2", 48)]
)
def test_tokenised_chats_and_the_marks_on_what_is_trained(
    work: Work, template: str, length: int, tmp_path: Path
) -> None:
    source = f"sources=[{{name: chats, path: {work.folder / 'chats.jsonl'}}}]"
    work.do(
        "data", "chats", "--tokenizer", work.folder / "tokenizer", source, f"template={template}",
        f"max_tokens={length}", "validation_share=0.1", "engine.workers=1",
        f"output_dir={tmp_path / 'chats'}",
    )  # fmt: skip
    check("formats.json", f"chats, {template}", hashes(tmp_path / "chats", work.folder))


def whole_numbers(seed: int, rows: int) -> Arrays:
    """A model of bit patterns: unchanged, little changed, wholly changed and longer tensors come of it."""
    same, other = np.random.default_rng(0), np.random.default_rng(seed)
    shapes = {"model.layers.0.mlp.up_proj.weight": (150, 70), "model.layers.0.norm.weight": (16,)}
    arrays: Arrays = {}
    for name, shape in shapes.items():
        arrays[name] = "BF16", same.integers(15000, 16500, shape).astype(np.uint16)
    moved = arrays["model.layers.0.mlp.up_proj.weight"][1] + other.integers(0, 3 * seed + 1, (150, 70))
    arrays["model.layers.0.mlp.up_proj.weight"] = "BF16", moved.astype(np.uint16)
    arrays["model.norm.weight"] = "F32", other.integers(0, 2**30, (16,)).astype(np.uint32)
    arrays["lm_head.weight"] = "F16", other.integers(0, 2**14, (rows, 8)).astype(np.uint16)
    return arrays


def test_a_delta_and_what_is_made_of_it_again(work: Work, tmp_path: Path) -> None:
    base = save(tmp_path / "base", whole_numbers(0, 40))
    target = save(tmp_path / "target", whole_numbers(1, 44), shards=2)
    delta, again = tmp_path / "delta", tmp_path / "again"
    work.do("delta", "make", "--base", base, "--target", target, "--delta", delta)
    check("formats.json", "delta", hashes(delta))
    work.do("delta", "apply", "--base", base, "--delta", delta, "--target", again)
    assert hashes(again) == hashes(target)


def test_scores_of_fixed_predictions_and_a_comparison(work: Work, tmp_path: Path) -> None:
    for name, wrong in (("a", 3), ("b", 5)):
        lines = [
            {"task": "t", "id": str(i), "reference": f"一种装置{i}号的方法", "groups": {"ipc": "AG"[i % 2]},
             "prediction": f"一种{'装置' if i % wrong else '设备'}{i}号的方法{'。' * (i % 4)}"}
            for i in range(64)
        ]  # fmt: skip
        inputs.write_lines(tmp_path / f"{name}.jsonl", lines)
    chosen = ["--metrics", "bleu-zh", "bleu-char", "chrf", "rouge-l-jieba", "ter"]
    work.do("eval", "score", tmp_path / "a.jsonl", *chosen, "--output", tmp_path / "scores.json")
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    work.do("eval", "compare", *files, *chosen, "--output", tmp_path / "compared.json")
    for name in ("scores", "compared"):
        found = json.loads((tmp_path / f"{name}.json").read_text("utf-8"))
        check("formats.json", name, found, tolerance=1e-9)
