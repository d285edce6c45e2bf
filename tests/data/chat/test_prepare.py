"""A prepared folder: every chat is where it belongs, with the tokens that it trains on, whoever made it."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import UserError
from core.model.labels import IGNORED
from data.chat.chat_template import encode, install
from data.chat.config import ChatDataConfig
from data.chat.prepare import ChatSet, find_chats, prepare
from data.chat.preview import preview
from data.packing.indexed_dataset import Documents
from tests.data.chat.chats import (
    chat_tokenizer,
    conversation,
    load,
    pairs,
    prepared,
    write_lines,
    write_tokenizer,
)

__all__ = ["chat_tokenizer"]

FILES = ("train.bin", "train.idx", "train.trained.bin", "train.sources.npy", "validation.bin")


def texts(made: ChatSet, split: str = "train") -> list[str]:
    """The chats of a split, in their order."""
    tokenizer, documents = load(made.tokenizer), Documents(made.split(split))
    return [tokenizer.decode(documents[i]) for i in range(len(documents))]


def answers(made: ChatSet, split: str = "train") -> list[str]:
    """What is trained on in each chat of a split."""
    tokenizer, documents, marks = load(made.tokenizer), Documents(made.split(split)), made.trained(split)
    found = []
    for i in range(len(documents)):
        first = documents.first_token(i)
        trained = marks[first : first + len(documents[i])].astype(bool)
        found.append(tokenizer.decode(documents[i][trained]))
    return found


def test_every_chat_is_on_one_side_once_with_its_answers_marked(chat_tokenizer: Path, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "a.jsonl", [{"messages": conversation(n % 3 + 1)} for n in range(60)])
    rows = write_lines(tmp_path / "b.jsonl", pairs(200))
    sources = [{"path": str(source), "name": "talks"}, {"path": str(rows), "name": "pairs"}]
    made = prepared(tmp_path / "out", chat_tokenizer, sources, validation_share=0.2)
    tokenizer = load(chat_tokenizer)
    install(tokenizer, "chatml")
    expected = [encode(tokenizer, conversation(n % 3 + 1)) for n in range(60)]
    for row in pairs(200):
        question = {"role": "user", "content": row["instruction"]}
        expected.append(encode(tokenizer, [question, {"role": "assistant", "content": row["output"]}]))
    assert sorted(texts(made) + texts(made, "validation")) == sorted(
        tokenizer.decode(e.ids) for e in expected
    )
    assert sorted(answers(made) + answers(made, "validation")) == sorted(
        tokenizer.decode(e.ids[e.trained]) for e in expected
    )
    counts = made.counts
    assert counts["train"]["trained_tokens"] == int(made.trained("train").sum())
    assert counts["train"]["tokens"] == len(made.trained("train"))
    sides = [counts["sources"]["pairs"][side]["chats"] for side in ("train", "validation")]
    assert sum(sides) == 200
    assert 20 <= sides[1] <= 60
    numbers = np.load(made.folder / "train.sources.npy")
    assert [("pump" in text, number) for text, number in zip(texts(made), numbers, strict=True)] == [
        (number == 0, number) for number in numbers
    ]
    # the conversations all begin with the same question, so they are on one side
    assert {counts["sources"]["talks"][side]["chats"] for side in ("train", "validation")} == {0, 60}


def test_the_folder_is_the_same_whoever_makes_it_and_another_seed_gives_another_order(
    chat_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = [{"path": str(write_lines(tmp_path / "a.jsonl", pairs(300)))}]
    one = prepared(tmp_path / "one", chat_tokenizer, source)
    monkeypatch.setattr("data.chat.prepare.SHARD_BYTES", 2000)
    monkeypatch.setattr("data.chat.tokenize_shard.PART_TOKENS", 500)
    monkeypatch.setattr("data.chat.merge_shards.BUCKET_BYTES", 1000)
    many = prepared(tmp_path / "many", chat_tokenizer, source, workers=2)
    for name in FILES:
        assert (one.folder / name).read_bytes() == (many.folder / name).read_bytes(), name
    other = prepared(tmp_path / "other", chat_tokenizer, source, seed=1, validation_share=0.0)
    assert texts(other) != texts(one)
    assert sorted(texts(other)) == sorted(texts(one) + texts(one, "validation"))
    assert not list(one.folder.glob("shard-*"))


def test_blocks_learn_the_marked_tokens_only_and_each_of_them_once(
    chat_tokenizer: Path, tmp_path: Path
) -> None:
    source = [{"path": str(write_lines(tmp_path / "a.jsonl", pairs(40)))}]
    made = prepared(tmp_path / "out", chat_tokenizer, source, validation_share=0.0, max_tokens=64)
    tokenizer = load(made.tokenizer)
    for packing in ("best-fit", "concat", "none"):
        blocks = made.blocks("train", 64, packing=packing, padding_id=tokenizer.pad_token_id)
        labels = [block["labels"] for block in (blocks[i] for i in range(len(blocks)))]
        found = np.concatenate([each[each != IGNORED] for each in labels])
        assert len(found) == blocks.trained_tokens == made.counts["train"]["trained_tokens"]
        text = tokenizer.decode(found)
        assert all(text.count(f"{answer['output']}<|im_end|>") == 1 for answer in pairs(40))
        assert len(blocks) == 40 if packing == "none" else len(blocks) < 40


def test_marks_that_do_not_belong_to_the_tokens_are_refused(chat_tokenizer: Path, tmp_path: Path) -> None:
    source = [{"path": str(write_lines(tmp_path / "a.jsonl", pairs(5)))}]
    made = prepared(tmp_path / "out", chat_tokenizer, source, validation_share=0.0)
    with (made.folder / "train.trained.bin").open("ab") as file:
        file.write(b"\x01")
    with pytest.raises(UserError, match="Make the data again"):
        made.blocks("train", 64, packing="best-fit", padding_id=0)
    with pytest.raises(UserError, match="validation"):
        made.blocks("validation", 64, packing="best-fit", padding_id=0)


def test_caps_weights_and_sides_take_what_they_say(chat_tokenizer: Path, tmp_path: Path) -> None:
    def source(name: str, number: int, **more: Any) -> dict[str, Any]:
        return {"path": str(write_lines(tmp_path / name, pairs(number, name))), "name": name, **more}

    sources = [
        source("capped", 100, cap=30),
        source("trebled", 20, weight=3),
        source("halved", 200, weight=0.5),
        source("both", 100, cap=10, weight=2),
        source("held", 10, side="validation"),
    ]
    made = prepared(tmp_path / "out", chat_tokenizer, sources, validation_share=0.0)
    found = {name: each["train"]["chats"] for name, each in made.counts["sources"].items()}
    assert (found["capped"], found["trebled"], found["both"], found["held"]) == (30, 60, 20, 0)
    assert 70 <= found["halved"] <= 130
    assert made.counts["sources"]["held"]["validation"]["chats"] == made.counts["validation"]["chats"] == 10
    everything = texts(made)
    assert {everything.count(text) for text in everything if "trebled" in text} == {3}
    assert len(set(everything)) == 30 + 20 + 10 + found["halved"]
    places = [i for i, text in enumerate(everything) if "capped" in text]
    assert max(places) - min(places) > len(everything) / 2  # drawn and shuffled, not the first ones first
    shares = [each["trained_share"] for each in made.counts["sources"].values()]
    assert sum(shares) == pytest.approx(1)


def test_replayed_sources_make_up_their_share_of_the_tokens(chat_tokenizer: Path, tmp_path: Path) -> None:
    sources: list[dict[str, Any]] = [
        {"path": str(write_lines(tmp_path / "domain", pairs(100, "domain"))), "name": "domain"},
        {"path": str(write_lines(tmp_path / "general", pairs(400, "general"))), "replay": True},
    ]
    made = prepared(tmp_path / "out", chat_tokenizer, sources, validation_share=0.0, replay_share=0.25)
    documents = Documents(made.split("train"))
    replayed = np.load(made.folder / "train.sources.npy") == 1
    share = documents.lengths[replayed].sum() / documents.lengths.sum()
    assert share == pytest.approx(0.25, abs=0.01)
    assert (~replayed).sum() == 100


def long_chats() -> list[Any]:
    """One that loses its oldest exchange, one that loses the beginning of its question, one whose answer
    alone is too long."""
    question = " ".join(f"w{i}" for i in range(60))
    return [
        {"messages": [{"role": "system", "content": "sys"}, *conversation(6)]},
        {"system": "sys", "instruction": question, "input": "", "output": "short"},
        {"instruction": "q", "input": "", "output": question},
        {"instruction": "q2", "input": "", "output": "fits"},
    ]


def test_what_is_too_long_is_cut_from_the_left_of_the_prompt(chat_tokenizer: Path, tmp_path: Path) -> None:
    source: list[dict[str, Any]] = [
        {"path": str(write_lines(tmp_path / "a.jsonl", long_chats())), "name": "a"}
    ]
    made = prepared(tmp_path / "out", chat_tokenizer, source, validation_share=0.0, max_tokens=120)
    tokenizer = load(made.tokenizer)
    talk, cut, fits = sorted(texts(made), key=lambda text: ("pump" not in text, "short" not in text))
    begin = "<|im_start|>system\nsys<|im_end|>\n<|im_start|>user\n"
    assert talk.startswith(begin + "What is pump ")
    assert talk.rstrip().endswith("pump 5.<|im_end|>")
    assert "pump 0" not in talk
    assert cut.startswith(begin)
    assert cut.rstrip().endswith("w58 w59<|im_end|>\n<|im_start|>assistant\nshort<|im_end|>")
    assert "fits" in fits
    lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (talk, cut)]
    assert 116 <= lengths[1] <= 120  # no more was cut than needed
    exchange = Documents(made.split("train")).lengths.max() - lengths[0]
    assert 0 <= exchange < 60
    counts = made.counts["sources"]["a"]
    assert (counts["cut"], counts["dropped"]) == (2, {"answer-too-long": 1})
    dropped = prepared(
        tmp_path / "dropped", chat_tokenizer, source, validation_share=0.0, max_tokens=120, over_long="drop"
    )
    assert dropped.counts["sources"]["a"]["dropped"] == {"over-long": 3}


def test_exchanges_before_an_answer_that_is_too_long_are_kept_and_the_rest_counted(
    chat_tokenizer: Path, tmp_path: Path
) -> None:
    long = [{"role": "user", "content": "More?"}, {"role": "assistant", "content": "x" * 400}]
    talks = [
        {"messages": [*conversation(2), *long]},
        {"messages": [*conversation(1), *long, *long]},
        {"messages": [*long, *conversation(1)]},
        {"messages": [*long, *long]},
        {"messages": [conversation(1)[0], conversation(1)[1] | {"weight": 0}, *long]},
    ]
    source: list[dict[str, Any]] = [{"path": str(write_lines(tmp_path / "a.jsonl", talks)), "name": "a"}]
    said: list[str] = []
    config = ChatDataConfig.model_validate(
        {"output_dir": str(tmp_path / "out"), "sources": source, "template": "chatml", "max_tokens": 200,
         "validation_share": 0.0, "error_budget": None, "engine": {"workers": 1}}
    )  # fmt: skip
    made = prepare(config, chat_tokenizer, say=said.append)
    assert sorted(text.count("pump") for text in texts(made)) == [2, 2, 4]
    assert all("xxxx" not in text and text.rstrip().endswith("<|im_end|>") for text in texts(made))
    counts = made.counts["sources"]["a"]
    assert (counts["cut"], counts["answers_left_out"]) == (3, 3)
    assert counts["dropped"] == {"answer-too-long": 2}
    assert "a: 3 answers at the end of chats are too long and left out" in said[0]
    last = prepared(
        tmp_path / "last", chat_tokenizer, source, validation_share=0.0, max_tokens=200, train_on="last"
    )
    assert last.counts["dropped"] == {"answer-too-long": 4}


def test_a_source_without_a_usable_chat_is_refused_and_a_template_without_an_end_is_told(
    tmp_path: Path,
) -> None:
    own = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    own += "{% if add_generation_prompt %}assistant:{% endif %}"
    tokenizer = write_tokenizer(tmp_path / "tokenizer", template=own)
    good = {"path": str(write_lines(tmp_path / "a.jsonl", pairs(5)))}
    lost = {"path": str(write_lines(tmp_path / "b.jsonl", [{"text": "x"}]))}
    settings: dict[str, Any] = {"output_dir": str(tmp_path / "out"), "engine": {"workers": 1}}
    said: list[str] = []
    prepare(ChatDataConfig.model_validate(settings | {"sources": [good]}), tokenizer, say=said.append)
    assert any(line.startswith("warning: the template does not put the end token </s>") for line in said)
    settings["output_dir"] = str(tmp_path / "other")
    empty = {"path": str(write_lines(tmp_path / "c.jsonl", [])), "side": "validation"}
    asked = ChatDataConfig.model_validate(settings | {"sources": [good, empty]})
    assert prepare(asked, tokenizer, say=said.append).counts["sources"][empty["path"]]["dropped"] == {
        "empty-file": 1
    }
    settings["output_dir"] = str(tmp_path / "third")
    with pytest.raises(UserError, match=r"c\.jsonl: no record has a usable chat"):
        prepare(
            ChatDataConfig.model_validate(settings | {"sources": [good, empty | {"side": "auto"}]}), tokenizer
        )
    long = {"path": str(write_lines(tmp_path / "d.jsonl", [{"instruction": "a", "output": "b " * 5000}]))}
    with pytest.raises(UserError, match=r"d\.jsonl: no record has a usable chat"):
        prepare(ChatDataConfig.model_validate(settings | {"sources": [good, long]}), tokenizer)
    with pytest.raises(UserError, match=r"b\.jsonl: no record has a usable chat"):
        prepare(
            ChatDataConfig.model_validate(settings | {"sources": [good, lost]}), tokenizer, say=said.append
        )


def test_a_folder_is_made_once_found_again_and_never_written_over(
    chat_tokenizer: Path, tmp_path: Path
) -> None:
    file = write_lines(tmp_path / "a.jsonl", pairs(20))
    settings: dict[str, Any] = {"output_dir": str(tmp_path / "out"), "sources": [{"path": str(file)}],
                                "template": "linly", "engine": {"workers": 1}}  # fmt: skip
    config = ChatDataConfig.model_validate(settings)
    assert find_chats(config) is None
    prepare(config, chat_tokenizer, say=lambda _: None)
    said: list[str] = []
    found = find_chats(config)
    assert found is not None
    assert load(found.tokenizer).chat_template
    prepare(config, chat_tokenizer, say=said.append)
    assert said[0].startswith("up to date")
    with pytest.raises(UserError, match="train_on"):
        find_chats(ChatDataConfig.model_validate(settings | {"train_on": "all"}))
    write_lines(file, pairs(21))
    with pytest.raises(UserError, match=r"a.jsonl: changed"):
        prepare(config, chat_tokenizer, say=lambda _: None)
    manifest = json.loads((found.folder / "manifest.json").read_text())
    assert manifest["sources"] == {str(file): {"licence": "unknown", "use": "unknown"}}


def test_the_preview_colours_what_is_trained_on(chat_tokenizer: Path, tmp_path: Path) -> None:
    source = [{"path": str(write_lines(tmp_path / "a.jsonl", pairs(3))), "name": "a"}]
    made = prepared(tmp_path / "out", chat_tokenizer, source, validation_share=0.0)
    shown = preview(made, load(made.tokenizer), chats=2)
    assert shown.count("\x1b[32m") == 2
    assert "<|im_start|>assistant\n\x1b[32mq answer " in shown
    assert "<|im_end|>\x1b[0m" in shown
    plain = preview(made, load(made.tokenizer), chats=1, colour=False)
    assert "⟦q answer " in plain
    assert "a: " in plain


def test_the_same_files_in_another_folder_make_the_same_data(chat_tokenizer: Path, tmp_path: Path) -> None:
    made = []
    for place in ("here", "there/deeper"):
        files = tmp_path / place / "chats"
        (files / "more").mkdir(parents=True)
        write_lines(files / "a.jsonl", pairs(80))
        write_lines(files / "more/b.jsonl", pairs(90))
        (files / "more/list.json").write_text(json.dumps(pairs(30)), "utf-8")
        write_lines(tmp_path / place / "c.jsonl", pairs(60))
        with zipfile.ZipFile(files / "d.zip", "w") as archive:
            archive.writestr("d.jsonl", (tmp_path / place / "c.jsonl").read_bytes())
        sources: list[dict[str, Any]] = [
            {"path": str(files), "cap": 200},
            {"path": str(tmp_path / place / "c.jsonl")},
        ]
        made.append(prepared(tmp_path / place / "out", chat_tokenizer, sources, validation_share=0.2))
    for name in FILES:
        assert (made[0].folder / name).read_bytes() == (made[1].folder / name).read_bytes(), name
