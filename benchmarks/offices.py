"""Synthetic patents in the offices' formats: ZIPs with one Chinese XML file per patent, USPTO weekly files.

There is as much markup as in real files: a bibliographic header of a few kilobytes, a tag around each
paragraph and claim.
"""

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from data.record import Record

CN = """<?xml version="1.0" encoding="utf-8" standalone="no"?>
<business:PatentDocumentAndRelated xmlns:base="http://www.sipo.gov.cn/XMLSchema/base" \
xmlns:business="http://www.sipo.gov.cn/XMLSchema/business" xsdVersion="V2.2.1" lang="zh" country="CN" \
docNumber="{number}" kind="A" datePublication="{date}">
  <business:BibliographicData>
    {references}
    <business:ClassificationIPCRDetails>
      <business:ClassificationIPCR sequence="1"><base:Text>{ipc}</base:Text></business:ClassificationIPCR>
    </business:ClassificationIPCRDetails>
    <business:InventionTitle lang="zh">{title}</business:InventionTitle>
    <business:Parties>
      {parties}
    </business:Parties>
  </business:BibliographicData>
  <business:Abstract dataFormat="original" lang="zh">
    <base:Paragraphs num="0001">{abstract}</base:Paragraphs>
  </business:Abstract>
  <business:Description lang="zh" dataFormat="original">
    <business:InventionTitle id="title1">{title}</business:InventionTitle>
    <business:InventionMode id="mode001">
      {paragraphs}
    </business:InventionMode>
  </business:Description>
  <business:Claims lang="zh" dataFormat="original">
    {claims}
  </business:Claims>
</business:PatentDocumentAndRelated>
"""
CN_REFERENCE = """<business:{kind}Reference dataFormat="{form}" sequence="1" sourceDB="national office">
      <base:DocumentID>
        <base:WIPOST3Code>CN</base:WIPOST3Code>
        <base:DocNumber>{number}</base:DocNumber>
        <base:Kind>A</base:Kind>
        <base:Date>{date}</base:Date>
      </base:DocumentID>
    </business:{kind}Reference>"""
CN_PARTY = """<business:Inventor sequence="{n}" dataFormat="original" sourceDB="national office">
        <base:AddressBook lang="zh"><base:Name>某某</base:Name></base:AddressBook>
      </business:Inventor>"""
US = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE us-patent-grant SYSTEM "us-patent-grant-v45-2014-04-03.dtd" [ ]>
<us-patent-grant lang="EN" dtd-version="v4.5 2014-04-03" country="US" date-publ="{date}">
<us-bibliographic-data-grant>
<publication-reference>
<document-id><country>US</country><doc-number>{number}</doc-number><kind>B2</kind><date>{date}</date></document-id>
</publication-reference>
<application-reference appl-type="utility">
<document-id><country>US</country><doc-number>{application}</doc-number><date>{date}</date></document-id>
</application-reference>
<invention-title id="d2e43">{title}</invention-title>
<us-references-cited>
{references}
</us-references-cited>
</us-bibliographic-data-grant>
<abstract id="abstract"><p id="p-0001" num="0000">{abstract}</p></abstract>
<description id="description">
{paragraphs}
</description>
<us-claim-statement>What is claimed is:</us-claim-statement>
<claims id="claims">
{claims}
</claims>
</us-patent-grant>
"""
US_CITED = """<us-citation><patcit num="{n:05d}"><document-id>
<country>US</country><doc-number>{n}</doc-number><kind>A</kind>
<name>Doe et al.</name><date>20010100</date></document-id></patcit>
<category>cited by examiner</category></us-citation>"""


def chinese(record: Record) -> str:
    """A record as the Chinese office's `PatentDocumentAndRelated`."""
    number, date = _number(record), "20211210"
    forms = [(kind, form) for kind in ("Publication", "Application") for form in ("original", "standard")]
    return CN.format(
        number=number,
        date=date,
        references="\n    ".join(
            CN_REFERENCE.format(
                kind=kind, form=form, number=number if kind == "Publication" else f"20{number}", date=date
            )
            for kind, form in forms
        ),
        ipc=(record["ipc"] or ["G06F 17/00"])[0],
        title=escape(record["title"] or ""),
        parties="\n      ".join(CN_PARTY.format(n=n) for n in range(1, 6)),
        abstract=escape(record["abstract"] or ""),
        paragraphs="\n      ".join(
            f'<base:Paragraphs id="p{n:04d}" num="n{n:04d}">{escape(text)}</base:Paragraphs>'
            for n, text in enumerate((record["description"] or "").split("\n"), 1)
        ),
        claims="\n    ".join(
            f'<business:Claim id="cl{n:04d}" num="{n:04d}"><business:ClaimText>{n}.{escape(text)}'
            "</business:ClaimText></business:Claim>"
            for n, text in enumerate(record["claims"] or (), 1)
        ),
    )


def american(record: Record) -> str:
    """A record as the USPTO's `us-patent-grant` v4.5."""
    number = _number(record)
    return US.format(
        number=number,
        application=f"13{number[-6:]}",
        date="20150106",
        title=escape(record["title"] or ""),
        references="\n".join(US_CITED.format(n=n) for n in range(1, 16)),
        abstract=escape(record["abstract"] or ""),
        paragraphs="\n".join(
            f'<p id="p-{n:04d}" num="{n:04d}">{escape(text)}</p>'
            for n, text in enumerate((record["description"] or "").split("\n"), 2)
        ),
        claims="\n".join(
            f'<claim id="CLM-{n:05d}" num="{n:05d}"><claim-text>{n}. {escape(text)}</claim-text></claim>'
            for n, text in enumerate(record["claims"] or (), 1)
        ),
    )


def write_zips(documents: Sequence[str | bytes], folder: Path, members: int = 2000) -> int:
    """Write ZIP archives with one document per member; returns the documents' total bytes."""
    size = 0
    for start in range(0, len(documents), members):
        with zipfile.ZipFile(folder / f"{start:07d}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for number, document in enumerate(documents[start : start + members], start):
                data = document if isinstance(document, bytes) else document.encode()
                archive.writestr(f"{number:07d}.xml", data)
                size += len(data)
    return size


def write_files(documents: Sequence[str | bytes], folder: Path) -> int:
    """Write one file per document; returns their total bytes."""
    size = 0
    for number, document in enumerate(documents):
        data = document if isinstance(document, bytes) else document.encode()
        size += (folder / f"{number:07d}.xml").write_bytes(data)
    return size


def write_weekly(documents: Iterable[str], path: Path) -> int:
    """Write one file with many documents, as the USPTO does; returns its size in bytes."""
    path.write_text("".join(documents), "utf-8")
    return path.stat().st_size


def _number(record: Record) -> str:
    return "".join(filter(str.isdigit, record["id"]))[:9]
