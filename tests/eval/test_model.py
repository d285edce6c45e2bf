"""A tiny local model: batches change nothing, likelihoods equal a plain loop, limits hold."""

import json
from pathlib import Path

import pytest
import torch

from core.errors import UserError
from eval.model import (
    Likelihood,
    Local,
    generate,
    identity,
    log_likelihood,
    open_model,
    rolling_log_likelihood,
    unequal_options,
)
from eval.sample import Sample
from eval.tasks import Request
from tests.conftest import run

TEXTS = ["一种装置，其特征在于", "a device", "权利要求1", "The quick brown fox jumps over it " * 3, "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA of two layers with random weights and a byte-level tokenizer that knows ` A` but not ` B`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("model")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", *alphabet, "ĠA"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "A")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(
        path
    )
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=128, initializer_range=0.3,
        )
    ).save_pretrained(path)  # fmt: skip
    return path


@pytest.fixture
def local(folder: Path) -> Local:
    return open_model(str(folder))


def request(prompt: str, n: int = 12, stop: tuple[str, ...] = ()) -> Request:
    return Request(prompt, Sample(task="t", id=prompt, prediction="", reference=""), n, stop)


def plain(local: Local, tokens: list[int], first: int) -> float:
    """Log-likelihood of tokens[first:], one text at a time."""
    with torch.inference_mode():
        logs = local.model(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)
    return sum(float(logs[i - 1, tokens[i]]) for i in range(first, len(tokens)))


def test_generation_is_the_same_whatever_the_batch(local: Local) -> None:
    requests = [request(text, n) for text, n in zip(TEXTS, (12, 5, 12, 3, 9), strict=True)]
    together = dict(generate(local, requests))
    local.batch_tokens = 1
    assert dict(generate(local, requests)) == together
    assert len(set(together.values())) > 1
    text = str(together[0])
    (stopped,) = dict(generate(local, [request(TEXTS[0], 12, (text[2], text[4]))])).values()
    assert stopped == min(text.split(text[2], maxsplit=1)[0], text.split(text[4], maxsplit=1)[0], key=len)


def test_likelihoods_equal_a_plain_loop(local: Local) -> None:
    pairs = [(text, " and more") for text in TEXTS]
    for (context, continuation), found in zip(pairs, log_likelihood(local, pairs), strict=True):
        whole = local.tokenizer(context + continuation)["input_ids"]
        first = len(local.tokenizer(context.rstrip(" "))["input_ids"])
        assert isinstance(found, Likelihood)
        assert found.tokens == len(whole) - first
        assert found.nats == pytest.approx(plain(local, whole, first), abs=1e-4)


def test_a_whole_text_is_scored_in_windows_each_token_once(local: Local) -> None:
    for text in [*TEXTS, "0123456789" * 30]:
        (found,) = rolling_log_likelihood(local, [text])
        ids = [0, *local.tokenizer(text, add_special_tokens=False)["input_ids"]]
        windows = [ids[i : i + 129] for i in range(0, len(ids) - 1, 128)]
        assert isinstance(found, Likelihood)
        assert found.tokens == len(ids) - 1
        assert found.nats == pytest.approx(sum(plain(local, w, 1) for w in windows), abs=1e-3)


def test_options_of_unequal_length_are_detected(local: Local) -> None:
    assert unequal_options(local, [" A", " B"]) == {" A": 1, " B": 2}
    assert unequal_options(local, ["A", "B"]) == {}


def test_out_of_memory_halves_the_budget_and_loses_nothing(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [request(text) for text in TEXTS]
    expected, whole = dict(generate(local, requests)), local.model.generate

    def small(**arguments: torch.Tensor) -> torch.Tensor:
        if len(arguments["input_ids"]) > 1:
            raise torch.OutOfMemoryError("planted")
        return torch.as_tensor(whole(**arguments))

    monkeypatch.setattr(local.model, "generate", small)
    assert dict(generate(local, requests)) == expected


def test_a_prompt_longer_than_the_context_is_cut_on_the_left_and_counted(local: Local) -> None:
    long = "z" * 500 + "end"
    (cut,) = generate(local, [request(long)])
    assert local.truncated == 1
    assert [cut] == list(generate(local, [request(long[-116:])]))
    with pytest.raises(UserError, match="leaves no room"):
        list(generate(local, [request("x", 128)]))


def test_a_run_of_a_folder_scores_and_its_key_covers_weights_and_tokenizer(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.yaml").write_text(
        "layout: jsonl\ndata: d.jsonl\nprompt: '{q}'\nmax_new_tokens: 4\nmetrics: [chrf]\n", "utf-8"
    )
    lines = [json.dumps({"q": text, "answer": "a"}) for text in TEXTS]
    (tmp_path / "d.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    arguments: list[str | Path] = [
        "--tasks",
        tmp_path / "t.yaml",
        "--data",
        tmp_path,
        "--output",
        tmp_path / "out",
    ]
    done = run("eval", "run", "--model", folder, *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["t"]["n"] == 5
    assert {"model.safetensors", "tokenizer.json", "config.json"} <= identity(str(folder))["files"].keys()
