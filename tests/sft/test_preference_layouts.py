"""Every layout of preference data gives one prompt, once, and two answers; what disagrees is left out."""

import json
from typing import Any

import pytest

from core.model.loading import load_tokenizer
from data.chat.chat_template import install
from sft.preference_data import PairsConfig, _encode
from sft.preference_layouts import read_pair
from tests.sft.chats import Bases


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


Q, GOOD, BAD = [user("Q?")], [bot("good")], [bot("bad")]
ANSWERS = {"chosen": "good", "rejected": "bad"}
WHOLE = {"chosen": Q + GOOD, "rejected": Q + BAD}
LONG = [user("one"), bot("first"), user("Q?")]
SHAREGPT = [{"from": "human", "value": "one"}, {"from": "gpt", "value": "first"},
            {"from": "human", "value": "Q?"}]  # fmt: skip
BRIEF = [system("Be brief.")]

SAME: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("texts", {"prompt": "Q?", **ANSWERS}, Q),
    ("messages beside", {"prompt": "Q?", **ANSWERS, "messages": Q + GOOD}, Q),
    ("explicit", {"prompt": Q, "chosen": GOOD, "rejected": BAD}, Q),
    ("implicit", WHOLE, Q),
    ("UltraFeedback", {"prompt": "Q?", **WHOLE, "messages": Q + GOOD, "score_chosen": 8}, Q),
    ("white space", {"prompt": " Q?\n", **WHOLE}, Q),
    ("both", {"prompt": Q, **WHOLE}, Q),
    ("whole and text", {"prompt": "Q?", "chosen": Q + GOOD, "rejected": "bad"}, Q),
    ("system beside", {"system": "Be brief.", "prompt": "Q?", **ANSWERS}, BRIEF + Q),
    ("system beside whole", {"system_prompt": "Be brief.", "prompt": "Q?", **WHOLE}, BRIEF + Q),
    ("system twice", {"system": "Be brief.", "prompt": BRIEF + Q, **ANSWERS}, BRIEF + Q),
    ("system in whole", {"prompt": "Q?", "chosen": BRIEF + Q + GOOD, "rejected": BRIEF + Q + BAD}, BRIEF + Q),
    ("system in prompt", {"prompt": BRIEF + Q, **WHOLE}, BRIEF + Q),
    ("system alone", {"prompt": BRIEF, **WHOLE}, BRIEF + Q),
    ("no system", {"system": "", "prompt": "Q?", **ANSWERS}, Q),
    ("turns", {"prompt": LONG, **ANSWERS}, LONG),
    ("turns, whole", {"prompt": "one", "chosen": LONG + GOOD, "rejected": LONG + BAD}, LONG),
    ("turns, last", {"prompt": "Q?", "chosen": LONG + GOOD, "rejected": LONG + BAD}, LONG),
    ("turns, partly", {"prompt": LONG[:2], "chosen": LONG + GOOD, "rejected": LONG + BAD}, LONG),
    ("turns, going on", {"prompt": LONG[:2], **WHOLE}, LONG),
    ("HH-RLHF", {"chosen": "\n\nHuman: one\n\nAssistant: first\n\nHuman: Q?\n\nAssistant: good",
                 "rejected": "\n\nHuman: one\n\nAssistant: first\n\nHuman: Q?\n\nAssistant: bad"}, LONG),
    ("HH-RLHF, prompt", {"prompt": "\n\nHuman: Q?\n\nAssistant:", **ANSWERS}, Q),
    ("Orca", {"system": "Be brief.", "question": "Q?", **ANSWERS}, BRIEF + Q),
    ("Alpaca", {"instruction": "Q?", "input": "", "history": [["one", "first"]], **ANSWERS}, LONG),
    ("ShareGPT", {"conversations": SHAREGPT, "chosen": {"from": "gpt", "value": "good"},
                  "rejected": {"from": "gpt", "value": "bad"}}, LONG),
    ("messages", {"messages": LONG, "chosen": GOOD[0], "rejected": BAD[0]}, LONG),
    ("messages inside", {"chosen": {"messages": Q + GOOD}, "rejected": {"messages": Q + BAD}}, Q),
    ("parts", {"prompt": [{"role": "user", "content": [{"type": "text", "text": "Q?"}]}], **ANSWERS}, Q),
    ("OpenAI", {"input": {"messages": BRIEF + LONG, "tools": []}, "preferred_output": GOOD,
                "non_preferred_output": BAD}, BRIEF + LONG),
    ("ms-swift", {"messages": LONG + GOOD, "rejected_response": "bad"}, LONG),
    ("ms-swift, whole", {"messages": LONG + GOOD, "rejected_messages": LONG + BAD}, LONG),
    ("Argilla", {"instruction": "Q?", "chosen_response": "good", "rejected_response": "bad"}, Q),
    ("StackExchange", {"question": "Q?", "response_j": "good", "response_k": "bad"}, Q),
    ("PKU-SafeRLHF", {"prompt": "Q?", "response_0": "bad", "response_1": "good", "better_response_id": 1}, Q),
    ("cells", {"prompt": "Q?", "chosen": json.dumps(Q + GOOD), "rejected": json.dumps(Q + BAD)}, Q),
]  # fmt: skip


@pytest.mark.parametrize(("row", "prompt"), [case[1:] for case in SAME], ids=[case[0] for case in SAME])
def test_the_prompt_is_there_once_and_the_answers_after_it(row: dict[str, Any], prompt: list[Any]) -> None:
    assert read_pair(row) == (prompt + GOOD, prompt + BAD)


OTHER: list[tuple[str, dict[str, Any], str]] = [
    ("other-prompt", {"chosen": Q + GOOD, "rejected": [user("another"), *BAD]}, "the same prompt"),
    ("other-prompt", {"chosen": BRIEF + Q + GOOD, "rejected": Q + BAD}, "the same prompt"),
    ("other-prompt", {"chosen": LONG + GOOD, "rejected": Q + BAD}, "the same prompt"),
    ("other-prompt", {"prompt": "another", **WHOLE}, "does not begin with `prompt`"),
    ("other-prompt", {"prompt": [user("another")], **WHOLE}, "does not begin with `prompt`"),
    ("other-prompt", {"prompt": "Q?", "question": "another", **ANSWERS}, "does not begin with `question`"),
    ("other-prompt", {"prompt": "Q?", "messages": LONG, **WHOLE}, "does not begin with `messages`"),
    ("other-prompt", {"system": "Be long.", "prompt": BRIEF + Q, **ANSWERS}, "`system`, `prompt`"),
    ("no-layout", {"system": ["Be brief."], "prompt": "Q?", **ANSWERS}, "`system` is list"),
    ("no-layout", {"prompt": 7, **ANSWERS}, "int, not a text or messages"),
    ("no-layout", {"prompt": [{"content": "Q?"}], **ANSWERS}, "role"),
    ("no-layout", {"instruction": "Q?", "history": [["one"]], **ANSWERS}, "unpack"),
    ("user-not-first", {"prompt": {"messages": []}, **ANSWERS}, "`chosen`"),
    ("no-layout", {"prompt": "Q?", "tools": [{"name": "search"}], **ANSWERS}, "pairs with tools"),
    ("no-layout", {"prompt": "Q?", "response_0": "a", "better_response_id": 2}, "response_2"),
    ("user-not-first", ANSWERS, "`chosen`"),
    ("no-answer", {"prompt": "Q?", "chosen": Q, "rejected": Q}, "`chosen`"),
]


@pytest.mark.parametrize(("reason", "row", "words"), OTHER)
def test_rows_that_disagree_are_left_out_with_the_reason(
    bases: Bases, reason: str, row: dict[str, Any], words: str
) -> None:
    found = _encode(row, "x#1", PairsConfig(paths=("x",)), load_tokenizer(bases.path()))
    assert found.reason == reason
    assert words in found.detail


def test_both_chats_are_as_a_template_writes_them_with_one_answer_trained_on(bases: Bases) -> None:
    tokenizer = load_tokenizer(bases.path())
    install(tokenizer, "llama3")
    row = {"system": "Be brief.", "prompt": "one", "chosen": LONG + GOOD, "rejected": LONG + BAD}
    _, pair = _encode(row, "x#1", PairsConfig(paths=("x",)), tokenizer)
    for chat, answer in zip(pair, (GOOD, BAD), strict=True):
        assert tokenizer.decode(chat.ids) == tokenizer.apply_chat_template(
            [*BRIEF, *LONG, *answer], tokenize=False
        )
        assert tokenizer.decode(chat.ids[chat.trained]).startswith(answer[0]["content"])
