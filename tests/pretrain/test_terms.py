"""Licences and origins go with the corpus into what is trained on it."""

from core.provenance import manifest
from tests.conftest import TinyRuns, run


def test_the_model_says_on_what_terms_its_corpus_came(tiny: TinyRuns) -> None:
    packed = manifest.read(tiny.folder / "corpus" / "pack")["sources"]
    terms = {"licence": "made by this program", "use": "any"}
    assert packed == {str(tiny.folder / "corpus" / "synthetic" / "records.jsonl"): terms}
    tiny.train("terms", "training.steps=1")
    assert manifest.read(tiny.folder / "terms" / "model")["sources"] == packed


def test_a_checkpoint_is_traced_back_to_the_raw_files(tiny: TinyRuns) -> None:
    tiny.train("traced", "training.steps=1")
    (checkpoint,) = (tiny.folder / "traced/checkpoints").glob("step-*")
    told = run("tools.lineage", checkpoint, "--verify")
    assert told.returncode == 0, told.stdout
    for step in ("[checkpoint]", "[pack]", "[ingest]", "[synthetic]"):
        assert step in told.stdout
