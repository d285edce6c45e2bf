"""Inventions that several sources write in their own spelling are one invention: one document, one side."""

import json
from pathlib import Path

from core.provenance import manifest
from data.packing.train_val_split import SplitConfig, link_families, split_of
from data.patent_numbers import application
from data.record import Record
from data.record_store import read_records
from tests.conftest import run
from tests.data.records import record, write_shards

INVENTIONS = 200
XML = """<?xml version="1.0" encoding="UTF-8"?>
<us-patent-application lang="EN" country="US"><us-bibliographic-data-application lang="EN" country="US">
<publication-reference><document-id><country>US</country><doc-number>2016{serial:07d}</doc-number><kind>A1</kind>
<date>20160107</date></document-id></publication-reference>
<application-reference appl-type="utility"><document-id><country>US</country>
<doc-number>14{serial:06d}</doc-number><date>20140701</date></document-id></application-reference><invention-title>{title}</invention-title>
</us-bibliographic-data-application><abstract><p>{abstract}</p></abstract>
<description><p>{first}</p></description></us-patent-application>
"""
OPS = """<exchange-document family-id="{family}" country="KR" doc-number="2013{serial:07d}" kind="A">
<bibliographic-data><publication-reference><document-id document-id-type="docdb"><country>KR</country>
<doc-number>2013{serial:07d}</doc-number><kind>A</kind></document-id></publication-reference>
<application-reference><document-id document-id-type="docdb"><country>KR</country>
<doc-number>2012{serial:07d}</doc-number><kind>A</kind></document-id></application-reference>
<invention-title lang="en">{title}</invention-title></bibliographic-data>
<abstract lang="en"><p>{abstract}</p></abstract></exchange-document>
"""
WORDS = ("lever", "bowl", "spring", "rope", "hinge", "valve", "drum", "blade", "wheel", "latch")


def texts(number: int) -> dict[str, str]:
    """Texts of an invention that no other one shares."""
    one, other = WORDS[number % 10], WORDS[number // 10 % 10]
    name = f"{one} number {number} with a {other} of size {number * 7919 % 1009}"
    return {
        "title": f"The {name}",
        "abstract": f"A {name} turns {number * 31 % 97} times while {number} of its parts hold the {other}.",
        "first": f"Description of the {name}: it is used in {number * 17 % 211} shops of the {one} trade.",
    }


def test_inventions_of_several_sources_are_joined_and_never_on_both_sides(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    google, search, answers = [], [], []
    for number in range(INVENTIONS):
        serial, text = 100_000 + number, texts(number)
        if number % 2:  # from the USPTO, Google, and the public search
            (raw / f"{number}.xml").write_text(XML.format(serial=serial, **text))
            google.append({
                "publication_number": f"US-{9_000_000 + number}-B2",
                "application_number": f"US-201414{serial:06d}-A",
                "title_localized": [{"text": text["title"], "language": "en"}],
                "abstract_localized": [{"text": text["abstract"], "language": "en"}],
            })  # fmt: skip
            search.append({
                "guid": f"US-{9_000_000 + number}-B2", "applicationNumber": f"14/{serial:06d}",
                "inventionTitle": text["title"], "abstractHtml": text["abstract"], "languageIndicator": "EN",
            })  # fmt: skip
        else:  # from Open Patent Services and Google
            answers.append(OPS.format(serial=serial, family=50_000_000 + number, **text))
            google.append({
                "publication_number": f"KR-10{2_000_000 + number}-B1",
                "application_number": f"10-2012-{serial:07d}", "country_code": "KR",
                "abstract_localized": [{"text": text["abstract"], "language": "en"}],
            })  # fmt: skip
    (raw / "google.jsonl").write_text("".join(json.dumps(row) + "\n" for row in google))
    (raw / "search.json").write_text(json.dumps(search))
    whole = f"<exchange-documents xmlns='http://www.epo.org/exchange'>{''.join(answers)}</exchange-documents>"
    (raw / "ops.xml").write_text(whole)
    done = run(
        "data", "run", f"output_dir={tmp_path / 'corpus'}", f"sources=[{raw}]", "synthetic=null",
        "tokenizer.vocabulary_size=400", "pack.validation_share=0.3", "clean.min_characters=0",
        "dedup.exact=false", "dedup.near=false", "engine.workers=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ingested = [record["application_id"] for record in read_records(tmp_path / "corpus/ingest")]
    assert len(ingested) == INVENTIONS // 2 * 5
    assert len(set(ingested)) == INVENTIONS, "one number for each application"
    kept = manifest.read(tmp_path / "corpus/dedup")["counts"]["kept"]
    assert kept == INVENTIONS, "one document for each invention"
    packed = manifest.read(tmp_path / "corpus/pack")["counts"]
    assert packed["train"]["documents"] + packed["validation"]["documents"] == INVENTIONS


def test_without_deduplication_all_spellings_are_on_one_side(tmp_path: Path) -> None:
    spellings = ["US-14{0:06d}", "US-201414{0:06d}-A", "14/{0:06d}", "US 14/{0:06d}", "201414{0:06d}"]
    shards: list[list[Record]] = [
        [
            record(
                10 * n + place,
                id=f"US-{9_000_000 + 10 * n + place}-B2",
                application_id=application(form.format(n), "US", "A" if place == 4 else None),
                family_id=None if place else f"F{n}",
            )
            for n in range(INVENTIONS)
        ]
        for place, form in enumerate(spellings)
    ]
    families = link_families([write_shards(shards, tmp_path / "shards")], None)
    split = SplitConfig(validation_share=0.5, seed=3)
    sides = [{split_of(each[n], split, families) for each in shards} for n in range(INVENTIONS)]
    assert all(len(found) == 1 for found in sides)
    assert {side for found in sides for side in found} == {"train", "validation"}
