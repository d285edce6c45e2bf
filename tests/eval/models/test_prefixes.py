"""A beginning that prompts share is computed once, and changes no answer."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from eval.models.hf import Local, generate, open_model
from eval.models.loglikelihood import log_likelihood
from eval.models.prefixes import STEP, groups, proven
from eval.sample import EvalSample
from eval.tasks.task import Request
from tests.eval.models.tiny import write_model

EXAMPLES = ["请回答下列问题。" * 12, "Translate the claim into English, word for word. " * 4]
ENDS = ["一种装置", "a device, wherein", "权利要求1所述的方法", "x"]
PROMPTS = [example + end for example in EXAMPLES for end in ENDS] + ["nothing shared"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), context=1024)


def opened(folder: Path, shares: bool | None, batch_tokens: int = 16_384) -> Local:
    local = open_model(str(folder), batch_tokens)
    local.shares = shares
    return local


def read(local: Local, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each call of the model reads."""
    tokens: list[int] = []
    whole = local.model.forward

    def counted(**arguments: Any) -> Any:
        tokens.append(arguments["input_ids"].numel())
        return whole(**arguments)

    monkeypatch.setattr(local.model, "forward", counted)
    return tokens


@pytest.mark.parametrize("batch_tokens", [16_384, 500, 1])
def test_answers_are_those_of_whole_prompts(
    folder: Path, batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = EvalSample(task="t", id="1", prediction="", reference="")
    requests = [Request(prompt, sample, 3 + 4 * (i % 3), ()) for i, prompt in enumerate(PROMPTS)]
    whole, shared = opened(folder, False, batch_tokens), opened(folder, None, batch_tokens)
    counts = [read(local, monkeypatch) for local in (whole, shared)]
    expected, found = (dict(generate(local, requests)) for local in (whole, shared))
    assert found == expected
    assert sorted(found) == list(range(len(PROMPTS)))
    assert sum(counts[1]) < sum(counts[0]) / 2


def test_likelihoods_are_those_of_whole_prompts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(prompt, option) for prompt in PROMPTS for option in (" A", " B", "其特征在于，", "C")]
    whole, shared = opened(folder, False), opened(folder, None)
    counts = [read(local, monkeypatch) for local in (whole, shared)]
    expected, found = (dict(log_likelihood(local, pairs)) for local in (whole, shared))
    assert found.keys() == expected.keys()
    for i, each in expected.items():
        assert found[i] == pytest.approx(each, rel=1e-5, abs=1e-5)
    assert sum(counts[1]) < sum(counts[0]) / 2


@pytest.mark.parametrize(
    ("family", "different", "suits"),
    [
        ("llama", {}, True),
        ("qwen3", {}, True),
        ("gpt_neox", {}, True),
        ("mistral", {"sliding_window": 32}, False),
        ("gemma2", {}, False),
        ("mamba", {}, False),
    ],
)
def test_only_families_that_keep_every_token_share(
    family: str, different: dict[str, Any], suits: bool
) -> None:
    assert proven(AutoConfig.for_model(family, **different), "sdpa") is suits


def test_without_the_proof_whole_prompts_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = opened(folder, None)
    monkeypatch.setattr("eval.models.hf.proven", lambda *_: False)
    counts = read(local, monkeypatch)
    assert len(dict(log_likelihood(local, [(prompt, " A") for prompt in PROMPTS]))) == len(PROMPTS)
    assert len(counts) == 1


ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 2 * STEP)), min_size=1, max_size=12
)


@settings(max_examples=200, deadline=None)
@given(ROWS)
def test_groups_hold_each_row_once_and_share_what_they_say(shapes: list[tuple[int, int, int]]) -> None:
    rows = [[kind] * (STEP * length) + [9] * rest for kind, length, rest in shapes]
    found = groups(rows)
    assert sorted(i for _, indices in found for i in indices) == list(range(len(rows)))
    assert [length for length, _ in found].count(0) <= 1
    for length, indices in found:
        assert length % STEP == 0
        assert len({tuple(rows[i][:length]) for i in indices}) == 1
        assert all(len(rows[i]) >= length for i in indices)


def test_the_longer_of_nested_beginnings_is_taken_where_it_saves_more() -> None:
    system = [1] * STEP
    law, physics = system + [2] * 4 * STEP, system + [3] * 4 * STEP
    rows = [[*law, 5], [*physics, 5], [*law, 6], [*physics, 6], [*law, 7]]
    assert sorted(groups(rows)) == [(5 * STEP, [0, 2, 4]), (5 * STEP, [1, 3])]
    alike = [[*system, number] for number in range(5)]
    assert groups(alike) == [(STEP, [0, 1, 2, 3, 4])]
