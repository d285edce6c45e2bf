"""Options by an endpoint's echoed log-probabilities; without them, by generation, and the table says so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from eval.models.openai_api import EvalEndpointConfig, log_likelihood, rolling_log_likelihood
from eval.sample import read_predictions
from tests.conftest import run
from tests.eval.models.server import Answer, serve
from tests.eval.models.tiny import write_task


def echo(prompt: str) -> Answer:
    """Two characters a token; its log-probability is minus its last character's place in the alphabet."""
    tokens = [prompt[i : i + 2] for i in range(0, len(prompt), 2)]
    nats = [-float(ord(token[-1]) - 64) for token in tokens]
    found = {
        "tokens": [*tokens, "?"],
        "text_offset": [*range(0, len(prompt), 2), len(prompt)],
        "token_logprobs": [None, *nats[1:], -9.0],
        "top_logprobs": [
            None,
            *({"A": -1.0, token: n} for token, n in zip(tokens[1:], nats[1:], strict=True)),
            {},
        ],
    }
    return json.dumps({"choices": [{"text": prompt + "?", "logprobs": found}]}).encode()


def test_tokens_of_the_continuation_are_summed_and_no_others() -> None:
    with serve(echo) as (url, asked):
        config = EvalEndpointConfig(url=url, model="m", log_probabilities=True)
        found = dict(log_likelihood(config, [("ABCD", "EF"), ("ABCD", "EFGA"), ("ABC", "D"), ("ABCD", "E")]))
    # EF; EF and GA; CD is across the boundary and counts in full; E.
    assert found == {0: (-6.0, 1, 0, 0.0), 1: (-7.0, 2, 1, 0.0), 2: (-4.0, 1, 0, 0.0), 3: (-5.0, 1, 0, 0.0)}
    assert asked[0].keys() == {"model", "prompt", "max_tokens", "temperature", "echo", "logprobs"}


def as_vllm(prompt: str) -> Answer:
    """vLLM with LLaMA's tokenizer: `<s>` comes first and shifts all offsets by three."""
    plain = json.loads(cast(bytes, echo(prompt)))
    found = plain["choices"][0]["logprobs"]
    found["text_offset"] = [0, *(offset + 3 for offset in found["text_offset"])]
    found["tokens"] = ["<s>", *(token.replace(" ", "▁") for token in found["tokens"])]
    found["token_logprobs"] = [None, -2.0, *found["token_logprobs"][1:]]
    found["top_logprobs"] = [None, {"x": -1.0}, *found["top_logprobs"][1:]]
    return json.dumps(plain | {"usage": {"completion_tokens": 1}}).encode()


def test_a_beginning_token_shifts_nothing_and_lets_whole_texts_be_measured() -> None:
    with serve(as_vllm) as (url, _):
        config = EvalEndpointConfig(url=url, model="m", log_probabilities=True)
        options = dict(log_likelihood(config, [("ABCD", "EF"), ("ABCDE", " A"), ("AB问题", "答案")]))
        texts = dict(rolling_log_likelihood(config, ["ABCDEF", "AB CD"]))
    assert options[0] == (-6.0, 1, 0, 0.0)
    assert options[1] == (-(ord(" ") - 64.0) - 1.0, 2, 2, 0.0)  # the token across the boundary, then A
    assert options[2] == (-(ord("案") - 64.0), 1, 0, 0.0)
    assert texts[0] == (-2.0 - 4.0 - 6.0, 3, 0, 0.0)
    assert texts[1] == (-2.0 - 3.0 - 4.0, 3, 0, 0.0)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (lambda prompt: echo(prompt + "!"), "do not spell 'EF'"),
        (lambda _: json.dumps({"choices": [{"text": "?", "logprobs": {
            "tokens": ["?"], "token_logprobs": [-1.0], "top_logprobs": [{}]}}]}).encode(),
         "remove --log-probabilities"),
    ],
)  # fmt: skip
def test_tokens_that_do_not_spell_the_prompt_are_an_error(
    answers: Callable[[str], Answer], words: str
) -> None:
    with serve(answers) as (url, _):
        config = EvalEndpointConfig(
            url=url, model="m", log_probabilities=True, attempts=1, first_wait_seconds=0.01
        )
        ((_, error),) = log_likelihood(config, [("ABCD", "EF")])
    assert words in str(error)


def test_a_text_whose_first_token_has_no_probability_is_reported() -> None:
    with serve(echo) as (url, _):
        config = EvalEndpointConfig(
            url=url, model="m", log_probabilities=True, attempts=1, first_wait_seconds=0.01
        )
        ((_, error),) = rolling_log_likelihood(config, ["ABCD"])
    assert "first token has no log-probability" in str(error)


@pytest.mark.parametrize("echoes", [True, False])
def test_options_by_likelihood_or_by_generation(tmp_path: Path, echoes: bool) -> None:
    (tmp_path / "law.csv").write_text("question,A,B,C,D,answer\n问?,1,2,3,4,B\n", "utf-8")
    write_task(
        tmp_path, "exam", "layout: choice\ndata: law.csv\nprompt: '{ask}'\nmetrics: [accuracy]\n"
        "question: '{question}'\n",
    )  # fmt: skip
    with serve(echo if echoes else lambda _: "答案是B") as (url, asked):
        done = run(
            "eval", "run", "--endpoint", url, "--model", "m", "--tasks", tmp_path / "exam.yaml", "--data",
            tmp_path, "--output", tmp_path / "out", *(["--log-probabilities"] if echoes else []),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (sample,) = read_predictions(tmp_path / "out")
    assert len(asked) == (4 if echoes else 1)
    assert sample.prediction == ("A" if echoes else "答案是B")
    assert ("no log-probabilities" in done.stdout) is not echoes


def test_an_endpoint_without_prompt_log_probabilities_is_reported() -> None:
    with serve(lambda _: "text") as (url, _):
        config = EvalEndpointConfig(
            url=url, model="m", log_probabilities=True, attempts=2, first_wait_seconds=0.01
        )
        ((_, error),) = log_likelihood(config, [("a", "b")])
    assert "remove --log-probabilities" in str(error)
