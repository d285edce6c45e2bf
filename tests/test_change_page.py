"""docs/change.md is true: the files and names exist, nothing else has to be edited, and a new one works."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from core.config.schema import ModelConfig
from data.chat import chat_template
from data.cleaning import record_cleaner
from data.cleaning.hyphens import Words
from data.cleaning.record_cleaner import CleanConfig, clean_record
from data.readers import formats
from data.record import Record, Rejected
from eval.analysis.scoring import score
from eval.metrics import metrics
from eval.metrics.measure import Measure, mean
from eval.sample import EvalSample
from eval.tasks.task import load_tasks, requests
from tests.conftest import ROOT
from tests.data.chat.chats import load, write_tokenizer
from tests.data.cleaning.cleaning import record

PAGE = (ROOT / "docs" / "change.md").read_text("utf-8")
ROWS = [row.strip("| ").split(" | ") for row in PAGE.splitlines() if re.match(r"\| an? ", row)]
PLACE = re.compile(r"`([\w./-]+\.(?:py|yaml))`: ((?:`\w+`(?:, )?)+)")
ROOMS = ("core", "data", "pretrain", "sft", "delta", "eval")


def test_the_page_has_every_change() -> None:
    assert len(ROWS) == 12
    assert all(len(row) == 3 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_files_and_names_exist_and_are_few(row: list[str]) -> None:
    _, edit, test = row
    places = PLACE.findall(edit)
    assert 1 <= len(places) <= 2
    for file, names in places:
        text = (ROOT / file).read_text("utf-8")
        for name in re.findall(r"\w+", names):
            defined = rf"^(?:def |class )?{name}(?:\(|:| =)"
            assert re.search(defined, text, re.MULTILINE), f"{file}: {name}"
    assert (ROOT / test.strip("`")).is_file()


@pytest.mark.parametrize(
    ("word", "files"),
    [
        ('"us-patent-grant"', {"data/readers/formats.py"}),
        ('"full-width"', {"data/cleaning/record_cleaner.py"}),
        ('"rouge-l-jieba"', {"eval/metrics/metrics.py"}),
        ('"paged_adamw_32bit"', {"core/config/schema.py", "core/train/optim.py"}),
        ('"kullm"', {"data/chat/chat_template.py"}),
        ("lora_dropout", {"core/model/lora.py"}),
        (".save_checkpoint(", {"core/distributed/deepspeed_backend.py"}),
        (".load_checkpoint(", {"core/distributed/deepspeed_backend.py"}),
        ("torch.distributed.run ", {"core/launch.py"}),
        ('rb"PAR1"', {"data/readers/rows.py"}),
    ],
)
def test_what_was_added_before_is_in_those_files_only(word: str, files: set[str]) -> None:
    sources = (path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    found = {path.relative_to(ROOT).as_posix() for path in sources if word in path.read_text("utf-8")}
    assert found == files


def test_a_new_root_element_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = formats._vocabulary

    def read(element: Any, source: str) -> list[Record]:
        return [record(title=element.findtext("title"), source=source)]

    def vocabulary(root: str) -> formats.Vocabulary | None:
        return formats.Vocabulary(read) if root == "new-office-patent" else known(root)

    monkeypatch.setattr(formats, "_vocabulary", vocabulary)
    file = tmp_path / "new.xml"
    file.write_text("<new-office-patent><title>Pump</title></new-office-patent>", "utf-8")
    (records,) = formats.read(file)
    assert not isinstance(records, Rejected)
    assert records[0]["title"] == "Pump"


def test_a_new_cleaning_rule_runs_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    known = record_cleaner.steps

    def steps(
        config: CleanConfig, given: Record, boilerplate: frozenset[str], words: Words
    ) -> Iterator[tuple[str, Record | None]]:
        last = given
        for name, after in known(config, given, boilerplate, words):
            yield name, after
            if after is None:
                return
            last = after
        yield "no-title", cast(Record, {**last, "title": None})

    monkeypatch.setattr(record_cleaner, "steps", steps)
    outcome = clean_record(CleanConfig(), record(title="A pump"))
    assert outcome.record is not None
    assert outcome.record["title"] is None
    assert outcome.changed["no-title"] == len("A pump") + 1


def test_a_new_metric_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    def length(samples: Sequence[EvalSample]) -> list[Measure]:
        return [mean("length", [len(s.prediction) for s in samples], "characters")]

    monkeypatch.setitem(metrics.METRICS, "length", length)
    samples = [
        EvalSample(task="t", id=str(i), prediction="a" * i, reference="", metrics=("length",))
        for i in range(40)
    ]
    (found,) = score(samples)["t"]["scores"]
    assert found["value"] == pytest.approx(19.5)


def test_a_new_task_is_one_yaml_file(tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text(
        'layout: jsonl\ndata: short.jsonl\nprompt: "Shorten: {text}\\n"\nmetrics: [chrf]\n', "utf-8"
    )
    (tmp_path / "short.jsonl").write_text('{"text": "a long claim", "answer": "a claim"}\n', "utf-8")
    ((name, task, _),) = load_tasks(str(tmp_path / "short.yaml"))
    (asked,) = requests(name, task, tmp_path)
    assert asked.prompt == "Shorten: a long claim\n"
    assert asked.sample.reference == "a claim"


def test_a_new_template_is_installed_and_prompts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    turns = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    text = turns + "{% if add_generation_prompt %}assistant: {% endif %}"
    monkeypatch.setitem(chat_template.TEMPLATES, "plain", text)
    tokenizer = load(write_tokenizer(tmp_path))
    chat_template.install(tokenizer, "plain")
    chat = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "user: 1</s>assistant: 2</s>"
    encoded = chat_template.encode(tokenizer, cast(Any, chat), train_on="answers")
    assert tokenizer.decode(encoded.ids[encoded.trained.astype(bool)]).strip() == "2</s>"


@pytest.mark.parametrize(
    "keys", [{"model_type": "olmo2"}, {"model_type": "phi3", "resid_pdrop": 0.0}], ids=["olmo2", "phi3"]
)
def test_an_architecture_that_no_file_names_is_loaded_and_learns(
    keys: dict[str, Any], tmp_path: Path
) -> None:
    from core.model.loading import create_base, load_model, load_tokenizer

    tokenizer = load_tokenizer(str(write_tokenizer(tmp_path / "tokenizer")))
    tokenizer.pad_token = "<pad>"
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    random = ModelConfig(architecture={**sizes, **keys, "num_key_value_heads": 2})
    create_base(random, tokenizer, tmp_path / "base")
    model = load_model(str(tmp_path / "base"), ModelConfig(path=str(tmp_path / "base")), torch.float32)
    logits = model(input_ids=torch.arange(8)[None]).logits
    torch.autograd.backward(logits.logsumexp(-1).sum())
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
