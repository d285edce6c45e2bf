"""Licences and permitted uses go with the corpus into what is trained on it."""

from core import manifest
from tests.conftest import TinyRuns


def test_the_model_says_on_what_terms_its_corpus_came(tiny: TinyRuns) -> None:
    packed = manifest.read(tiny.folder / "corpus" / "pack")["sources"]
    terms = {"licence": "made by this program", "use": "any"}
    assert packed == {str(tiny.folder / "corpus" / "synthetic" / "records.jsonl"): terms}
    tiny.train("terms", "training.steps=1")
    assert manifest.read(tiny.folder / "terms" / "model")["sources"] == packed
