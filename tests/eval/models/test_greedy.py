"""Greedy decoding equals transformers' `generate`, whatever else is in the batch."""

from pathlib import Path
from typing import Any

import pytest
import torch

from eval.models.greedy import ROOM, greedy, with_room
from eval.models.hf import Local, generate, open_model, pad
from eval.sample import EvalSample
from eval.tasks.task import Request
from tests.eval.models.tiny import write_model

TEXTS = [
    "一种装置，其特征在于",
    "a device",
    "权利要求1",
    "The quick brown fox jumps over it",
    "x",
    "yz",
    "ab",
    "q",
]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    return open_model(str(write_model(tmp_path_factory.mktemp("model"))))


def plain(local: Local, text: str, n: int) -> list[int]:
    """The oracle: n tokens by `generate`, one text at a time."""
    ids = torch.tensor([local.tokenizer(text)["input_ids"]])
    with torch.inference_mode():
        out = local.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, min_new_tokens=n,
            do_sample=False, pad_token_id=1, eos_token_id=None,
        )  # fmt: skip
    return [int(token) for token in out[0, ids.shape[1] :]]


def forwards(local: Local, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each call of the model has."""
    rows: list[int] = []
    whole = local.model.forward

    def counted(**arguments: Any) -> Any:
        rows.append(len(arguments["input_ids"]))
        return whole(**arguments)

    monkeypatch.setattr(local.model, "forward", counted)
    return rows


def test_each_row_has_the_tokens_of_transformers_generate(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = [3, 20, 1, 9, 14, 20, 2, 6]
    expected = [plain(local, text, n) for text, n in zip(TEXTS, limits, strict=True)]
    rows = forwards(local, monkeypatch)
    ids, mask = pad([local.tokenizer(text)["input_ids"] for text in TEXTS], local, left=True)
    with torch.inference_mode():
        assert greedy(local.model, ids, mask, limits, lambda _row, _tokens: False) == expected
    assert len(rows) == 20  # finished rows cost no steps
    assert rows[0] == 8
    assert rows[-1] == 2
    assert rows == sorted(rows, reverse=True)


def test_a_row_ends_when_told_to_and_the_others_continue(local: Local) -> None:
    expected = [plain(local, text, 12) for text in TEXTS]
    ids, mask = pad([local.tokenizer(text)["input_ids"] for text in TEXTS], local, left=True)
    with torch.inference_mode():
        found = greedy(
            local.model, ids, mask, [12] * 8, lambda row, tokens: row % 2 == 0 and len(tokens) == 4
        )
    assert found == [tokens[: 4 if row % 2 == 0 else 12] for row, tokens in enumerate(expected)]


def test_a_stop_string_ends_decoding_early(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    text = local.tokenizer.decode(plain(local, TEXTS[0], 40))
    stop = text[10]
    rows = forwards(local, monkeypatch)
    sample = EvalSample(task="t", id="1", prediction="", reference="")
    ((_, answer),) = generate(local, [Request(TEXTS[0], sample, 40, (stop,))])
    assert answer == text.split(stop)[0]
    assert len(rows) <= 11


def test_a_stop_string_across_tokens_is_found(local: Local) -> None:
    text = local.tokenizer.decode(plain(local, TEXTS[1], 40))
    stop = text[12:17]
    sample = EvalSample(task="t", id="1", prediction="", reference="")
    ((_, answer),) = generate(local, [Request(TEXTS[1], sample, 40, (stop,))])
    assert answer == text.split(stop)[0]


@pytest.mark.parametrize("form", [int, lambda token: [1, token]], ids=["one", "several"])
def test_end_tokens_of_the_generation_config_end_an_answer(
    local: Local, monkeypatch: pytest.MonkeyPatch, form: Any
) -> None:
    tokens = plain(local, TEXTS[3], 20)
    end = tokens[8]
    monkeypatch.setattr(local.model.generation_config, "eos_token_id", form(end))
    sample = EvalSample(task="t", id="1", prediction="", reference="")
    ((_, answer),) = generate(local, [Request(TEXTS[3], sample, 20, ())])
    assert answer == local.tokenizer.decode(tokens[: tokens.index(end) + 1], skip_special_tokens=True)


def test_a_model_with_an_adapter_decodes_too(local: Local, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    whole = open_model(str(write_model(tmp_path)))
    before = [plain(whole, text, 8) for text in TEXTS[:3]]
    whole.model = get_peft_model(whole.model, LoraConfig(target_modules=["q_proj"])).eval()
    sample = EvalSample(task="t", id="1", prediction="", reference="")
    answers = dict(generate(whole, [Request(text, sample, 8, ()) for text in TEXTS[:3]]))
    assert [answers[i] for i in range(3)] == [
        local.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in before
    ]


def test_the_cache_has_the_keys_of_transformers_and_is_copied_once_in_many_tokens(local: Local) -> None:
    ids = torch.tensor([local.tokenizer(text)["input_ids"][:6] for text in TEXTS[:4]])
    with torch.inference_mode():
        theirs, ours = (local.model(input_ids=ids, use_cache=True).past_key_values for _ in range(2))
        with_room(ours)
        places = set()
        for step in range(2 * ROOM):
            new = torch.randn(len(theirs.layers[0].keys), *theirs.layers[0].keys.shape[1:2], 1, 16)
            expected = theirs.layers[0].update(new, new + 1)
            found = ours.layers[0].update(new, new + 1)
            assert ours.get_seq_length() == 7 + step
            places.add(found[0].data_ptr())
            if step == ROOM // 2:
                for cache in (theirs, ours):
                    cache.layers[0].batch_select_indices(torch.tensor([0, 3]))
                expected, found = ((c.layers[0].keys, c.layers[0].values) for c in (theirs, ours))
            assert all(map(torch.equal, found, expected))
    assert len(places) <= 4, "at first, at the selection, and once more"
