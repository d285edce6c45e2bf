"""What the tests of all readers share: files to read, and what became of their documents."""

import re
from pathlib import Path

from data.readers.column_mapping import Options
from data.readers.formats import read
from data.record import Noted, Record, Rejected

GRANT = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE us-patent-grant SYSTEM "us-patent-grant-v45-2014-04-03.dtd" [ ]>
<us-patent-grant lang="EN" country="US"><us-bibliographic-data-grant>
<publication-reference><document-id><country>US</country><doc-number>0{number}</doc-number><kind>B2</kind>
<date>20150106</date></document-id></publication-reference>
<application-reference><document-id><country>US</country><doc-number>13648029</doc-number></document-id>
</application-reference>
<classifications-ipcr>
<classification-ipcr><section>H</section><class>04</class><subclass>L</subclass><main-group>9</main-group>
<subgroup>32</subgroup><symbol-position>L</symbol-position></classification-ipcr>
<classification-ipcr><section>G</section><class>06</class><subclass>F</subclass><main-group>15</main-group>
<subgroup>16</subgroup><symbol-position>F</symbol-position></classification-ipcr>
</classifications-ipcr>
<invention-title id="t">Pump for H<sub>2</sub>O</invention-title></us-bibliographic-data-grant>
<abstract><p>A pump
   that pumps.</p></abstract>
<description>{description}</description>
<claims><claim num="00001"><claim-text>1. A pump, comprising: <claim-text>a rotor; and</claim-text>
<claim-text>a seal.</claim-text></claim-text></claim>
<claim num="00002"><claim-text><b>2</b>. The pump of <claim-ref>claim 1</claim-ref>.</claim-text></claim>
</claims>
</us-patent-grant>
"""


def grant(number: str = "8930553", description: str = "<p>It pumps.</p>") -> str:
    return GRANT.format(number=number, description=description)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def records(path: Path, options: Options | None = None) -> list[Record]:
    """All records of a file that has no rejected document."""
    outcomes = [outcome for outcome in read(path, options) if not isinstance(outcome, Noted)]
    assert not [outcome for outcome in outcomes if isinstance(outcome, Rejected)]
    return [record for outcome in outcomes if isinstance(outcome, list) for record in outcome]


def only(path: Path) -> Record:
    """The record of a file that gives one."""
    (record,) = records(path)
    return record


def reasons(path: Path, options: Options | None = None) -> list[str]:
    """What became of each document: its first id, or why it was rejected."""
    return [
        outcome.reason if isinstance(outcome, Rejected) else without_digest(outcome[0]["id"])
        for outcome in read(path, options)
    ]


def without_digest(name: str) -> str:
    """The id of a document that names none, without the digest of its content."""
    return re.sub("-[0-9a-f]{12}$", "", name)


def rejected(path: Path, options: Options | None = None) -> Rejected:
    (outcome,) = read(path, options)
    assert isinstance(outcome, Rejected)
    return outcome
