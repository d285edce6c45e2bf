"""Real publications of every office and era, as a person reads them, with all claims."""

import re
import zipfile
from pathlib import Path

import pytest
from lxml import etree

from data.readers.formats import read
from data.readers.offices import patent_xml, sgml_entities
from data.record import Record, Rejected
from tests.real import test_readers

pytestmark = pytest.mark.real


@pytest.fixture(scope="session")
def filed(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the documents that lie in the USPTO's ZIP of filed documents."""
    folder = tmp_path_factory.mktemp("filed")
    with zipfile.ZipFile(real / "patents/uspto/xml4ip/sample_XML4IP.ZIP") as archive:
        for name in archive.namelist():
            if name.lower().endswith(".xml"):
                (folder / Path(name).name).write_bytes(archive.read(name))
    return folder


def xml_files(real: Path, filed: Path) -> list[Path]:
    return [*sorted((real / "patents").rglob("*.xml")), *sorted(filed.iterdir())]


def records(path: Path) -> list[Record]:
    """All records of a file; what is rejected has no text."""
    outcomes = list(read(path))
    rejected = [outcome for outcome in outcomes if isinstance(outcome, Rejected)]
    assert all(outcome.reason in ("missing-text", "empty-row") for outcome in rejected), rejected[:3]
    return [record for outcome in outcomes if isinstance(outcome, list) for record in outcome]


def tree(path: Path) -> etree._Element:
    """The file as XML has it, with its named characters written out."""
    parser = etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True)
    root = etree.parse(str(path), parser).getroot()
    for entity in root.iter(etree.Entity):
        patent_xml.replace(entity, sgml_entities.character(entity.text or "") or "")
    return root


AS_READ_BY_A_PERSON = """
cn/xml/cn_old1.xml|CN-104223352-A|zh|3|A24B 15/18|一种甘草发酵所得烟用香料及其应用|一种甘草发酵所得烟用香料，
cn/xml/cn_old2.xml|CN-104245143-A|zh|43|B03B 5/04|用于对包含于人造草坪的填充材料|一种用于对包含于人造草坪的填
cn/xml/cn_new1.xml|CN-113781974-A|zh|17|G09G 3/36|显示设备|显示设备，包括：⏎显示面板，所述显示面板包括：⏎多个
cn/xml/cn_new2.xml|CN-113783949-A|zh|10|H04L 29/08|一种基于合约管理的跨链去中心化方法|一种基于合约管理的跨链去
jp/jp_example1.xml|JP-2021044377-A|ja|6|H01L 21/301|ウェーハの加工方法|複数のデバイスが、分割予定ラインによっ
uspto/sgml/US06336130.xml|US-6336130-B1|en|22|G06F 15/16|Arrangement for improving av|An arrangement in a netw
uspto/sgml/US06337117.xml|US-6337117-B1|en|39|B32B 3/02|Optical memory device|An optical memory device compris
uspto/sgml/USD435854S1.xml|US-D435854-S|en|1|None|Disc cartridge|The ornamental design for a disc cartridge, a
uspto/pap/US20010000044A1.xml|US-20010000044-A1|en|21|G06F 17/60|Systems and Methods For Trans|A method of doi
uspto/pap/US20010000943A1.xml|US-20010000943-A1|en|13|H01J 1/62|Organic electroluminescence d|An organic elect
uspto/pap/US20010009014A1.xml|US-20010009014-A1|en|55|G06F 15/16|Facilitating real-time, multi|A method for fa
uspto/greenbook/US03932709.greenbook|US-3932709-A|en|17|H04M 11/00|Electronic business telephone|An electronic
uspto/greenbook/US03937375.greenbook|US-3937375-A|en|3|B60R 9/00|Bumper support for a boat l|In a bumper suppo
uspto/greenbook/US04347903.greenbook|US-4347903-A|en|3|G01G 19/04|Electronic reading balance|A weighing balanc
uspto/css_brs/css_brs_sample.txt|US-9204581-B2|en|20|H05K 9/00|Method for performing chip level|A method for p
uspto/css_brs/css_brs_sample.txt|US-9204583-B2|en|18|H01B 11/00|Cylindrical electromagnetic band|A cylindrical
filed/12993548.2013-05-30.HHC6R88MPXXIFW3.CLM.xml|US-12993548-CLM-20130530-CLM|en|17|None|None|An adhesive tap
filed/14522151.2014-10-23.I1MKPKCGPXXIFW3.CLM.xml|US-14522151-CLM-20141023-I1MKPKCGPXXIFW3|en|9|None|None|A me
epo_ops/test_full_cycle_example.xml|EP-1000000-A1|en|0|B28B 1/29|Apparatus for manufacturing green bricks|None
epo_ops/test_claims_example.xml|EP-1000000-A1|en|11|None|None|Apparatus for manufacturing green bricks from cl
epo_ops/test_claims_example_2.xml|WO-2009085664-A2|en|20|None|None|A computer-implemented method comprising: m
epo_ops/test_claims_example_2.json|WO-2009085664-A2|None|20|None|None|A computer-implemented method comprising
epo_ops/test_biblio_example_3.xml|AU-2013290010-A1|en|0|C10L 1/00|Novel fuel composition|None
epo_ops/fixtures_ep1000000_biblio_result.json|EP-1000000-A1|None|0|B28B 1/29|Apparatus for|None
filed/14522151.2014-10-23.I1MKPKDKPXXIFW3.SPEC.xml|US-14522151-SPEC-20141023-I1MKPKDKPXXIFW3|en|0|None|None|None
epo_ops/fixtures_ep1000000_description_result.json|EP-1000000-A1|None|0|None|None|None
epo_ops/test_claims_example.json|EP-1000000-A1|None|11|None|None|Apparatus for manufacturing green bricks from
cn/zh_patent_cpc/sample_test.csv|CN-118866379-A|zh|0|None|None|None
cn/zh_patent_titles/oof_predictions.csv|CN-111504366-B|zh|0|None|基于人工智能的流体输送系统精确计量方法|None
"""
"""File, id, language, number of claims, first IPC symbol, start of the title, start of the first claim.

Grants and applications since 2004 and the EPO's single files stand in test_readers.py.
"""


def test_the_tables_have_a_file_of_every_format(real: Path, filed: Path) -> None:
    tables = (AS_READ_BY_A_PERSON + test_readers.AS_READ_BY_A_PERSON).strip().splitlines()
    shown = {line.partition("|")[0] for line in tables}
    paths = {
        filed / Path(name).name if name.startswith("filed/") else real / "patents" / name for name in shown
    }
    roots = {patent_xml.root_name(path.read_bytes()) for path in xml_files(real, filed)}
    assert roots == {patent_xml.root_name(path.read_bytes()) for path in paths if path.suffix == ".xml"}
    folders = {path.parent for path in (real / "patents").rglob("*") if path.is_file()}
    assert {folder for folder in folders if folder.name != "xml4ip"} <= {path.parent for path in paths}


WITHOUT_TEXT = {
    "selected_labels.json": "bad-json",  # a list of labels
    "fixtures_search_result.json": "unknown-columns",  # numbers alone
    "test_biblio_example_2.xml": "missing-text",  # an application without a title
    "test_image_example.xml": "missing-text",
    "test_search_example.xml": "missing-text",
}


def test_every_file_is_read(real: Path) -> None:
    files = [path for path in sorted((real / "patents").rglob("*")) if path.is_file()]
    assert len(files) > 120
    for path in files:
        outcomes = list(read(path))
        reasons = {outcome.reason for outcome in outcomes if isinstance(outcome, Rejected)}
        if path.name in WITHOUT_TEXT:
            assert reasons == {WITHOUT_TEXT[path.name]}, path
        else:
            assert reasons <= {"missing-text", "empty-row"}, path
            assert any(isinstance(outcome, list) for outcome in outcomes), path


@pytest.mark.parametrize("line", AS_READ_BY_A_PERSON.strip().splitlines())
def test_publications_as_a_person_reads_them(real: Path, filed: Path, line: str) -> None:
    file, name, language, claims, ipc, title, first = line.split("|")
    path = filed / Path(file).name if file.startswith("filed/") else real / "patents" / file
    record = next(record for record in records(path) if record["id"] == name)
    assert str(record["language"]) == language
    assert len(record["claims"] or []) == int(claims)
    assert (record["ipc"] or ["None"])[0] == ipc
    assert (record["title"] or "None").startswith(title)
    assert (record["claims"] or ["None"])[0].startswith(first.replace("⏎", "\n"))


CLAIMS = {
    "us-patent-grant": "//claims/claim",
    "us-patent-application": "//claims/claim",
    "patent-application-publication": "//subdoc-claims/claim",
    "PATDOC": "//SDOCL/CL/CLM",
    "cn-patent-document": "//claims/claim[@num]",
    "PatentDocumentAndRelated": "//*[local-name()='Claim'][@num]",
    "jp-official-gazette": "/*/claims/claim",
    "patent-document": "//claims/claim",
    "fulltext-document": "//*[local-name()='claim']",
    "world-patent-data": "//*[local-name()='claim-text']",
    "SpecificationDocument": "//*[local-name()='Claim']",
    "ClaimsDocument": "//*[local-name()='Claim'][*[local-name()='ClaimNumber'][text()]]"
    "[.//text()[normalize-space()][ancestor::*[local-name()='ClaimText']]"
    "[not(ancestor::*[local-name()='BoundaryData' or local-name()='ClaimLabelText'])]]",
}
"""Where claims stand, by root element."""


CANCELLED = re.compile(r"[\s\d.-]*\(?cancel+ed\b.{0,40}", re.IGNORECASE | re.DOTALL)


def test_every_file_is_read_with_the_claims_that_an_independent_count_finds(real: Path, filed: Path) -> None:
    for path in xml_files(real, filed):
        if path.name == "test_claims_example_2.xml":  # its claims are lines of one text; see the table above
            continue
        root = tree(path)
        claims = [record["claims"] or [] for record in records(path)]
        elements = nodes(root, CLAIMS[etree.QName(root).localname])
        expected = [e for e in elements if not CANCELLED.fullmatch("".join(map(str, e.itertext())))]
        assert sum(map(len, claims)) == len(expected), path


def test_no_layout_is_left_in_a_text(real: Path, filed: Path) -> None:
    green_books = (real / "patents/uspto/greenbook").iterdir()
    for path in [*xml_files(real, filed), *green_books, *(real / "patents/uspto/css_brs").iterdir()]:
        for record in records(path):
            assert record["id"], path
            for text in (record["title"] or "", *parts(record)):
                assert not re.search("  |\n\n|^\\s|\\s$|[\u2028\ufdd0\ufdd1]", text), path


def test_text_files_have_the_number_of_claims_that_they_state(real: Path) -> None:
    files = [*(real / "patents/uspto/greenbook").iterdir(), *(real / "patents/uspto/css_brs").iterdir()]
    for path in files:
        stated = re.findall(r"^NCL +(\d+)$", path.read_text("utf-8"), re.MULTILINE)
        assert [len(record["claims"] or []) for record in records(path)] == list(map(int, stated)), path


def nodes(element: etree._Element, path: str) -> list[etree._Element]:
    found = element.xpath(path)
    assert isinstance(found, list)
    return [node for node in found if isinstance(node, etree._Element)]


def parts(record: Record) -> list[str]:
    return [record["abstract"] or "", *(record["claims"] or ()), record["description"] or ""]
