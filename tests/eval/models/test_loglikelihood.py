"""Likelihoods of a tiny local model: equal to a plain loop's and to those of lm-evaluation-harness."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eval.models import loglikelihood
from eval.models.base import Backend, Likelihood, Likelihoods, ask
from eval.models.hf import Local, open_model
from eval.models.loglikelihood import answer_likelihood, log_likelihood, rolling_log_likelihood
from eval.tasks import task as tasks
from tests.eval.models.tiny import write_jsonl, write_model, write_task

TEXTS = ["一种装置，其特征在于", "a device", "权利要求1", "The quick brown fox jumps over it " * 3, "x"]
PAIRS = [
    *((text, option) for text in TEXTS for option in (" A", " B", "A", "B")),
    ("Answer:\n", "two words"), ("", "from the start"), ("x" * 200, "longer than the context"),
]  # fmt: skip
LONG = ["".join(map(str, range(n))) for n in (60, 80, 200)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def local(folder: Path) -> Local:
    return open_model(str(folder))


def found(call: Callable[[Local, Any], Likelihoods], local: Local, asked: Sequence[Any]) -> list[Likelihood]:
    """All results in the order of what was asked, each there once."""
    results = list(call(local, asked))
    assert sorted(i for i, _ in results) == list(range(len(asked)))
    return [each for _, each in sorted(results, key=lambda r: r[0]) if isinstance(each, Likelihood)]


def plain(local: Local, tokens: list[int], first: int) -> Likelihood:
    """Of tokens[first:], one text at a time."""
    with torch.inference_mode():
        logs = local.model(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1).double().numpy()
    places = range(first, len(tokens))
    return Likelihood(
        sum(float(logs[i - 1, tokens[i]]) for i in places),
        len(places),
        sum(int(logs[i - 1].argmax() == tokens[i]) for i in places),
        -sum(float((np.exp(logs[i - 1]) * logs[i - 1]).sum()) for i in places),
    )


def test_likelihoods_equal_a_plain_loop_whatever_the_batch(local: Local) -> None:
    pairs = PAIRS[:-2]
    results = found(log_likelihood, local, pairs)
    for (context, continuation), result in zip(pairs, results, strict=True):
        whole = local.tokenizer(context + continuation)["input_ids"]
        first = len(local.tokenizer(context.rstrip())["input_ids"])
        assert result == pytest.approx(plain(local, whole, first), abs=1e-4)
    budget, local.batch_tokens = local.batch_tokens, 1
    assert np.allclose(found(log_likelihood, local, pairs), results, atol=1e-5)
    local.batch_tokens = budget


def test_an_answer_is_read_with_its_end_and_with_its_prompt(local: Local) -> None:
    ((_, both),) = answer_likelihood(local, [("问：x\n", "答案")])
    ids = [*local.tokenizer("问：x\n答案")["input_ids"], 1]
    assert not isinstance(both, Exception)
    # A white space at the end of the prompt is the answer's, as in lm-evaluation-harness.
    assert both[0] == pytest.approx(plain(local, ids, len(ids) - 8), abs=1e-4)
    assert both[1] == pytest.approx(plain(local, ids, 1), abs=1e-4)


@pytest.fixture(scope="module")
def harness(folder: Path) -> Any:
    """lm-evaluation-harness on the same folder."""
    pytest.importorskip("lm_eval")
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), device="cpu", batch_size=4, dtype="float32")


def test_log_likelihoods_equal_those_of_lm_evaluation_harness(local: Local, harness: Any) -> None:
    from lm_eval.api.instance import Instance

    asked = [Instance("loglikelihood", {}, pair, 0) for pair in PAIRS]
    theirs = harness.loglikelihood(asked, disable_tqdm=True)
    ours = found(log_likelihood, local, PAIRS)
    assert len(ours) == len(theirs)
    assert [o.nats for o in ours] == pytest.approx(
        [t[0] for t in theirs], abs=1e-5, rel=1e-6
    )  # they sum in fp32
    assert [o.correct == o.tokens for o in ours] == [t[1] for t in theirs]


def test_rolling_log_likelihoods_equal_those_of_lm_evaluation_harness(local: Local, harness: Any) -> None:
    from lm_eval.api.instance import Instance

    texts = [*TEXTS, *LONG]
    asked = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts]
    theirs = harness.loglikelihood_rolling(asked, disable_tqdm=True)
    ours = found(rolling_log_likelihood, local, texts)
    assert [o.nats for o in ours] == pytest.approx(theirs, rel=1e-6, abs=1e-5)
    assert [o.tokens for o in ours] == [len(text.encode()) for text in texts]


def test_windows_with_the_same_input_and_different_targets(local: Local) -> None:
    """Of a text that repeats itself, two windows may have the same input and different targets."""
    (result,) = found(rolling_log_likelihood, local, ["一种装置" * 40])
    ids = [0, *local.tokenizer("一种装置" * 40)["input_ids"]]
    windows = [(ids[:129], 1), (ids[128:257], 1), (ids[256:385], 1), (ids[352:], 33)]
    assert result.nats == pytest.approx(sum(plain(local, *w).nats for w in windows), rel=1e-6)


def test_by_position_every_token_and_byte_is_in_one_part(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text is longer than the context of 128 tokens and than the last part; a token is a byte."""
    ends = (8, 16, 100, 200)
    monkeypatch.setattr(loglikelihood, "POSITIONS", ends)
    texts = ["一种装置 with A, " * 12, "short", ""]
    (whole, *_) = found(rolling_log_likelihood, local, texts)
    results: dict[int, Any] = dict(loglikelihood.position_likelihood(local, texts))
    ids = [0, *local.tokenizer(texts[0])["input_ids"]]
    assert len(ids) > 201
    assert results[0][0] == whole
    for start, end in pairwise((0, *ends)):
        nats = 0.0
        for begin in range(0, len(ids) - 1, 128):
            stop = min(begin + 128, len(ids) - 1)
            window, offset = ids[max(0, stop - 128) : stop + 1], max(0, stop - 128)
            first, last = max(start, begin), min(end, stop)
            if first < last:
                upto = window[: last - offset + 1]
                nats += plain(local, upto, first - offset + 1).nats
        assert results[0][1][f"nats_to_{end}"] == pytest.approx(nats, rel=1e-5)
    assert sum(results[0][1][f"bytes_to_{end}"] for end in ends) == 210, "` A` is one token of two bytes"
    assert results[1][1] == {
        "nats_to_8": pytest.approx(results[1][0].nats), "bytes_to_8": 5,
        **{f"{kind}_to_{end}": 0 for kind in ("nats", "bytes") for end in ends[1:]},
    }  # fmt: skip
    assert set(results[2][1].values()) == {0}


def test_an_empty_text_is_no_error(local: Local) -> None:
    assert found(rolling_log_likelihood, local, ["", "x"])[0] == Likelihood(0.0, 0)


def test_long_windows_and_more_places_than_are_held_at_once(tmp_path: Path) -> None:
    long = open_model(str(write_model(tmp_path, context=2048)))
    text = "".join(map(str, range(400)))  # 1,090 tokens
    (whole,) = found(rolling_log_likelihood, long, [text])
    ids = [0, *long.tokenizer(text)["input_ids"]]
    assert whole == pytest.approx(plain(long, ids, 1), rel=1e-6)
    short = open_model(str(tmp_path), context=500)
    assert found(rolling_log_likelihood, short, [text])[0].tokens == whole.tokens


def test_a_whole_task_gives_what_lm_evaluation_harness_gives(
    folder: Path, tmp_path: Path, harness: Any
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.api.task import ConfigurableTask

    questions = [(f"问题{i}?", "甲乙丙丁"[i % 4] * (1 + i % 3), "ABCD"[i * 7 % 4]) for i in range(24)]
    (tmp_path / "law.csv").write_text(
        "question,A,B,C,D,answer\n" + "".join(f"{q},{x},b,c,d,{a}\n" for q, x, a in questions), "utf-8"
    )
    file = write_task(
        tmp_path, "exam", "layout: choice\ndata: law.csv\nprompt: '{ask}'\nmetrics: [accuracy]\n"
    )
    requests = tasks.requests(*tasks.load_task(str(file)), tmp_path)
    lines = [{"prompt": r.prompt, "gold": "ABCD".index(r.sample.reference)} for r in requests]
    write_jsonl(tmp_path / "theirs.jsonl", *lines)
    task = ConfigurableTask(
        config={
            "task": "exam", "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice",
            "dataset_kwargs": {"data_files": {"test": str(tmp_path / "theirs.jsonl")}},
            "doc_to_text": "{{prompt}}", "doc_to_choice": ["A", "B", "C", "D"], "doc_to_target": "gold",
            "target_delimiter": "", "metric_list": [{"metric": "acc"}],
        }
    )  # fmt: skip
    theirs = simple_evaluate(harness, tasks=[task], log_samples=True, bootstrap_iters=0, verbosity="ERROR")
    answers = dict(
        ask(Backend({}, lambda _: iter(()), partial(log_likelihood, open_model(str(folder)))), requests)
    )
    for sample in theirs["samples"]["exam"]:
        answer = answers[sample["doc_id"]]
        assert not isinstance(answer, Exception)
        nats = [float(each[0]) for each in sample["filtered_resps"]]
        assert list(answer["measured"].values()) == pytest.approx(nats, abs=1e-5)
    right = [
        a["prediction"] == requests[i].sample.reference
        for i, a in answers.items()
        if not isinstance(a, Exception)
    ]
    assert sum(right) / 24 == theirs["results"]["exam"]["acc,none"]
