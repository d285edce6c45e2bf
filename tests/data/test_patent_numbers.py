"""Each application and publication has one spelling, whatever the source."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.patent_numbers import application, publication, publication_key

APPLICATIONS = """
US-14999032        | 14999032 US | 14/999,032 | 14/999032 US
US-14999032        | US 14/999,032 | US-201414999032-A | 201414999032 US A
US-14999032        | US201414999032 | 102014014999032 US
US-06849486        | 06/849,486 | 84948686 US A | US-84948686-A | US19860849486
US-10123456        | 10123456 US | US-12345602-A | US20020123456
US-09912345        | 09/912,345 | US-91234501-A
US-29412345        | 29/412,345 | US-201229412345-F
US-61612345        | US-201261612345-P | 61/612,345
WO-US2003012345    | PCT/US03/12345 | PCT/US2003/012345 US
WO-US2003012345    | US-2003012345-W | 2003012345 US W | WO2003US12345
WO-CN2014080123    | PCT/CN2014/080123 CN | CN-2014080123-W
EP-05255002        | EP 05255002.3 | 05255002 EP | EP20050255002
EP-05255002        | EP-05255002-A | 05 255 002.3 EP | 102005000255002 EP
EP-99912345        | 99912345.6 EP | EP19990912345 | EP-99912345-A
CN-201480000788    | 201480000788.4 CN | CN-201480000788-A
CN-201480000788    | ZL201480000788.4 | 2014800007884 CN | CN201480000788.4
CN-02123456        | 02123456.X CN | CN-02123456-A | CN20021023456 | 02123456 CN | ZL 02123456.X
CN-85100001        | 85100001 CN | CN-85100001-A
KR-1020130121923   | 1020130121923 KR | 10-2013-0121923 KR
KR-1020130121923   | KR-20130121923-A | 20130121923 KR A | KR 10-2013-0121923
KR-2020130001234   | 20-2013-0001234 KR | KR-20130001234-U
JP-2019165329      | 2019165329 JP | JP-2019165329-A | 特願2019-165329 | JP20190165329
JP-1998123456      | 特願平10-123456 | H10-123456 JP
JP-1998123456      | JP-12345698-A | JP19980123456 | 平成10年特許願第123456号 JP
JP-1985123456      | 昭60-123456 JP | JP-12345685-A
JP-U2019000123     | 実願2019-000123 | JP-2019000123-U
DE-102005012345    | 102005012345.6 DE | 10 2005 012 345.6 DE | DE-102005012345-A | DE20051012345
DE-19812345        | 19812345 DE | 198 12 345.6 DE | DE-19812345-A
GB-0512345         | 0512345.6 GB | GB-0512345-A | GB20050012345
FR-0512345         | 0512345 FR | FR-0512345-A | FR20050012345
TW-102112345       | 102112345 TW | TW-102112345-A | TW20130112345
TW-092112345       | 92112345 TW | TW-92112345-A
ES-200000222       | ES-200000222-A | ES-200000222
US-some thing      | some thing US
"""  # fmt: skip

PUBLICATIONS = """
US-9990032-B2      | US-9990032-B2 | US9990032B2 | US 9,990,032 B2
US-9990032-B2      | 9990032 US B2 | 09990032 US B2 | US-9990032-B2-20180605
US-20160999032-A1  | US-2016999032-A1 | US20160999032A1
US-20160999032-A1  | 20160999032 US A1 | US 2016/0999032 A1 | 2016999032 US A1
US-RE43633-E1      | US-RE43633-E1 | USRE43633E1 | US RE43,633 E1 | RE043633 US E1
US-D712345-S1      | USD712345S1 | D0712345 US S1 | US-D712345-S1
US-PP12345-P2      | USPP12345P2 | PP12345 US P2
US-H1234-H1        | USH1234H1 | H0001234 US H1
EP-1000000-B1      | EP1000000B1 | EP 1 000 000 B1 | EP-1000000-B1 | 1000000 EP B1
EP-0012345-A1      | EP0012345A1 | 12345 EP A1 | EP-12345-A1
WO-2005123456-A1   | WO 2005/123456 A1 | WO2005123456A1 | WO-2005123456-A1
WO-1999012345-A1   | WO9912345A1 | WO 99/12345 A1 | WO-9912345-A1
WO-2002012345-A1   | WO0212345A1 | WO 02/12345 A1 | WO-02012345-A1
CN-104123456-A     | CN104123456A | CN-104123456-A | 104123456 CN A
KR-20130121923-A   | KR 10-2013-0121923 A | KR-20130121923-A | KR1020130121923A
KR-101234567-B1    | KR-101234567-B1 | 10-1234567 KR B1 | KR 10-1234567 B1 | 1012345670000 KR B1
JP-2019123456-A    | JP-2019123456-A | JP2019123456A | 特開2019-123456 JP A
JP-H10123456-A     | JP-H10123456-A | JPH10123456A | 特開平10-123456 JP A
JP-H07012345-B2    | JPH0712345B2 | 特公平7-12345 JP B2
JP-6123456-B2      | JP-6123456-B2 | 特許第6123456号 JP B2 | JP6123456B2
JP-WO2005012345-A1 | JPWO2005012345A1 | 再表2005/012345 JP A1
DE-102005012345-A1 | DE102005012345A1 | DE 10 2005 012 345 A1
GB-2123456-A       | GB2123456A | GB-2123456-A
TW-I345678-B       | TWI345678B | TW-I345678-B
"""  # fmt: skip


def pairs(table: str) -> list[tuple[str, tuple[str | None, ...]]]:
    """Each normal form with each of its spellings: the number, and the office and kind beside it, if any."""
    found: list[tuple[str, tuple[str | None, ...]]] = []
    for line in table.strip().splitlines():
        normal, *spellings = (cell.strip() for cell in line.split("|"))
        for spelling in spellings:
            number, *beside = spelling.split(" ")
            while beside and not (len(beside[0]) == 2 and beside[0].isalpha()):
                number += f" {beside.pop(0)}"
            found.append((normal, (number, *beside)))
    return found


@pytest.mark.parametrize(("normal", "spelling"), pairs(APPLICATIONS), ids=str)
def test_an_application_has_one_number(normal: str, spelling: tuple[str | None, ...]) -> None:
    assert application(*spelling) == normal
    assert application(normal) == normal


@pytest.mark.parametrize(("normal", "spelling"), pairs(PUBLICATIONS), ids=str)
def test_a_publication_has_one_number(normal: str, spelling: tuple[str | None, ...]) -> None:
    found = publication(*spelling)
    assert found is not None
    assert found.id == normal
    again = publication(normal)
    assert again == found
    assert publication_key(normal) == publication_key(normal.rpartition("-")[0])


def test_the_tables_have_more_than_sixty_pairs() -> None:
    assert len(pairs(APPLICATIONS)) >= 60
    assert len(pairs(PUBLICATIONS)) >= 60


@pytest.mark.parametrize("text", ["", " ", None, "patents-000001", "7", "en-000001", "XX-12345", "a lock"])
def test_what_is_no_publication_number_has_none(text: str | None) -> None:
    assert publication_key(text) is None


def test_inventions_of_one_office_keep_their_difference() -> None:
    assert application("10-2013-0001234", "KR") != application("20-2013-0001234", "KR")
    assert application("特願2019-000123") != application("実願2019-000123")
    assert application("PCT/US2003/012345") != application("PCT/CN2003/012345")
    assert publication_key("US-D712345-S1") != publication_key("US-712345-A")


@given(st.text(max_size=20), st.none() | st.sampled_from(["US", "EP", "CN", "KR", "JP", "DE", "TW", "ES"]))
def test_any_text_is_kept_or_written_once(text: str, office: str | None) -> None:
    found = application(text, office)
    assert found is None or application(found) == found or text.strip() in found
    again = publication(text, office)
    assert again is None or publication(again.id) in (again, None)
