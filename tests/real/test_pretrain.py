"""`make pretrain` on real patents of two offices with LLaMA's tokenizer, down to a checkpoint that
transformers opens."""

import json
import re
from pathlib import Path

import pytest

from data.record_store import read_records
from tests.conftest import run

pytestmark = pytest.mark.real


def test_real_patents_become_a_checkpoint_and_every_document_is_accounted_for(
    real: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    sources = [real / "patents" / "uspto", real / "patents" / "epo"]
    settings = [
        f"data.sources=[{sources[0]},{sources[1]}]",
        f"data.output_dir={tmp_path / 'corpus'}",
        f"data.tokenizer={{path: {real / 'tokenizers' / 'llama_tokenizer.model'}}}",
        f"run_dir={tmp_path / 'run'}",
        "data.pack.validation_share=0.05",
        "validation_tokens=20000",
        "training.steps=30",
        "training.validate_every_steps=15",
        "training.save_every_steps=null",
    ]
    prepared = run("pretrain", "--prepare", *settings, threads=2)
    assert prepared.returncode == 0, prepared.stderr
    trained = run("pretrain", *settings, threads=2, timeout=600)
    assert trained.returncode == 0, trained.stderr

    def counts(step: str) -> dict[str, int]:
        found: dict[str, int] = json.loads((tmp_path / "corpus" / step / "manifest.json").read_text())[
            "counts"
        ]
        return found

    files = [path for source in sources for path in source.rglob("*") if path.is_file()]
    ingested, cleaned, packed = counts("ingest"), counts("clean"), counts("pack")
    rejected = [
        json.loads(line) for line in (tmp_path / "corpus/ingest/rejected.jsonl").read_text().splitlines()
    ]
    met = [line["source"] for line in rejected]
    met += [record["source"] for record in read_records(tmp_path / "corpus" / "ingest")]
    lost = [path for path in files if not any(source.startswith(str(path)) for source in met)]
    assert not lost, "every file gave a record or a reason"
    assert ingested["rejected"]["total"] == len(rejected)  # type: ignore[index]
    assert all(line["reason"] and line["source"] for line in rejected)
    assert cleaned["records_in"] == ingested["records"]
    assert cleaned["records_in"] == cleaned["records_out"] + sum(cleaned["dropped"].values())  # type: ignore[attr-defined]
    documents = packed["train"]["documents"] + packed["validation"]["documents"]  # type: ignore[index]
    unique = counts("dedup")
    assert cleaned["records_out"] == unique["records"] == unique["kept"] + sum(unique["dropped"].values())  # type: ignore[attr-defined]
    assert documents == unique["kept"]
    for office, language in (("US", "en"), ("EP", "en"), ("EP", "de"), ("EP", "fr")):
        assert re.search(rf"^{office} +{language} +\d", prepared.stdout, re.MULTILINE)

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    assert len(tokenizer) == model.config.vocab_size == 32_000
    validated = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert validated[-1]["validation_loss"] < 9.0, "random weights give ln 32000 = 10.4"
