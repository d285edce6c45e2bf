"""Generated instruction data: what the passage does not support is left out; nothing is paid for twice."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from data.chat.generate_with_llm import GenerateConfig, generate
from data.chat.grounding_check import unsupported
from tests.conftest import run
from tests.eval.models.server import Answer, serve

PASSAGE = (
    "The court held that the patent was invalid because the rotor of 35 mm was known from the earlier"
    " document. The appeal was dismissed, and the appellant bears the costs of 1,200 euros of the"
    " proceedings."
)
KOREAN = "법원은 이 사건 특허발명이 선행발명에 의하여 진보성이 부정된다고 판단하였다. 상고를 기각한다."


@pytest.mark.parametrize(
    ("answer", "evidence", "rule"),
    [
        ("The rotor of 35 mm was known.", "the rotor of 35 mm was known from the earlier document.", None),
        ("The costs are 1200 euros.", "the appellant bears the costs of 1,200 euros", None),
        ("The rotor of 36 mm was known.", "the rotor of 35 mm was known", "number-not-in-passage"),
        ("The rotor was known.", "the stator was known", "evidence-not-in-passage"),
        ("The rotor was known.", "", "evidence-not-in-passage"),
        ("Damages were awarded because infringement seemed obvious.", "The appeal was dismissed",
         "words-not-in-passage"),
        ("…", "The appeal was dismissed", "empty-answer"),
    ],
)  # fmt: skip
def test_an_answer_must_rest_on_the_passage(answer: str, evidence: str, rule: str | None) -> None:
    assert unsupported(answer, evidence, PASSAGE, "What was held?", 0.5) == rule


def test_korean_answers_are_compared_by_pairs_of_letters() -> None:
    evidence = "상고를 기각한다."
    assert unsupported("법원은 상고를 기각하였다.", evidence, KOREAN, "결론은?", 0.5) is None
    assert unsupported("손해배상을 명하였다.", evidence, KOREAN, "결론은?", 0.5) == "words-not-in-passage"


def pair(question: str, answer: str, evidence: str) -> dict[str, str]:
    return {"question": question, "answer": answer, "evidence": evidence}


GOOD = pair("What of the rotor?", "The rotor of 35 mm was known.", "the rotor of 35 mm was known")


def documents(folder: Path, number: int) -> Path:
    """Judgments as plain texts."""
    folder.mkdir()
    for i in range(number):
        (folder / f"{i}.txt").write_text(f"Judgment {i}.\n{PASSAGE}\n")
    return folder


def config(folder: Path, url: str, **settings: Any) -> GenerateConfig:
    endpoint = {"url": url, "model": "m", "first_wait_seconds": 0.01, "attempts": 2, "concurrency": 2,
                "price_per_million_prompt_tokens": 2, "price_per_million_completion_tokens": 10}  # fmt: skip
    given = {"output_dir": str(folder / "out"), "sources": [str(folder / "texts")], **settings}
    return GenerateConfig.model_validate(given | {"endpoint": endpoint})


def completion(pairs: Any) -> bytes:
    """A chat completion that says what it cost."""
    text = f"Sure!\n```json\n{json.dumps({'pairs': pairs})}\n```"
    usage = {"prompt_tokens": 100, "completion_tokens": 50}
    return json.dumps({"choices": [{"message": {"content": text}}], "usage": usage}).encode()


def test_pairs_are_kept_with_their_evidence_and_the_rest_is_counted_by_rule(tmp_path: Path) -> None:
    documents(tmp_path / "texts", 3)

    def answer(prompt: str) -> Answer:
        number = re.findall(r"Judgment (\d)\.", prompt)[0]
        if number == "2":
            return json.dumps({"choices": [{"message": {"content": "I cannot."}}]}).encode()
        good = GOOD | {"question": f"What of the rotor in judgment {number}?"}
        return completion([good, good, pair("Q?", "It was 99.", "The appeal was dismissed"), "text"])

    with serve(answer) as (url, asked):
        counts = generate(config(tmp_path, url))
    assert len(asked) == counts["requests"] == 3
    assert counts["kept"] == {"qa": 2}
    assert counts["dropped"] == {"duplicate": 2, "number-not-in-passage": 2, "not-a-pair": 3}
    assert (counts["prompt_tokens"], counts["completion_tokens"]) == (200, 100)
    assert counts["cost"] == pytest.approx((200 * 2 + 100 * 10) / 1e6)
    kept = [json.loads(line) for line in (tmp_path / "out/train.jsonl").read_text().splitlines()]
    assert all(row["evidence"] in row["passage"] and "texts/" in row["source"] for row in kept)
    dropped = (tmp_path / "out/dropped.jsonl").read_text().splitlines()
    assert len(dropped) == 7


def test_a_failed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    documents(tmp_path / "texts", 6)
    broken = {"4", "5"}

    def answer(prompt: str) -> Answer:
        number = re.findall(r"Judgment (\d)\.", prompt)[0]
        return 500 if number in broken else completion([GOOD | {"question": f"Rotor {number}?"}])

    with serve(answer) as (url, asked):
        with pytest.raises(UserError, match=r"2 of 6 requests failed .*HTTP 500"):
            generate(config(tmp_path, url))
        assert not (tmp_path / "out").exists()
        journal = tmp_path / ".out.unfinished" / "answers.jsonl"
        journal.write_bytes(journal.read_bytes() + b'{"key": "cut sho')  # as a kill leaves it
        broken.clear()
        asked.clear()
        counts = generate(config(tmp_path, url))
        assert len(asked) == 2
        assert counts["kept"] == {"qa": 6}
        with pytest.raises(UserError, match="already exists"):
            generate(config(tmp_path, url))


def test_summaries_and_claims_keep_the_text_as_input_and_passages_are_drawn(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    row = {"id": "US-1-A", "title": "Pump", "claims": ["1. A pump that has a rotor of 35 mm."],
           "description": f"{PASSAGE}\n{PASSAGE.replace('rotor', 'valve')}"}  # fmt: skip
    (tmp_path / "texts" / "a.jsonl").write_text(json.dumps(row) + "\n")

    def answer(prompt: str) -> Answer:
        if "plain words" in prompt:
            return completion([pair("Explain the claim.", "A pump has a rotor.", "A pump that has a rotor")])
        return completion(
            [pair("Summarise the text.", "The appeal was dismissed.", "The appeal was dismissed")]
        )

    with serve(answer) as (url, asked):
        counts = generate(config(tmp_path, url, kinds=["summary", "claim"], passage_characters=250))
        assert counts["kept"] == {"summary": 2, "claim": 1}
        asked.clear()
        few = config(tmp_path, url, kinds=["summary"], passage_characters=250, max_passages=1)
        generate(few.model_copy(update={"output_dir": str(tmp_path / "few")}))
        assert len(asked) == 1
    rows = [json.loads(line) for line in (tmp_path / "out/train.jsonl").read_text().splitlines()]
    assert {row["task"]: row["input"][:6] for row in rows} == {"summary": "The co", "claim": "A pump"}


def test_the_command_generates_and_tells_the_cost(tmp_path: Path) -> None:
    documents(tmp_path / "texts", 1)
    with serve(lambda _: completion([GOOD])) as (url, _):
        settings = ["endpoint.model=m", "endpoint.price_per_million_prompt_tokens=10000"]
        places = [f"output_dir={tmp_path / 'out'}", f"sources=[{tmp_path / 'texts'}]"]
        done = run("data", "generate", "--endpoint", url, *settings, *places)
    assert done.returncode == 0, done.stderr
    assert re.search(r"kept +qa 1\n", done.stdout)
    assert re.search(r"cost +1.0\n", done.stdout)
