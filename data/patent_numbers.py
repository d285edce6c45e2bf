"""One spelling for each application and publication number, whatever the source.

    US-201414999032-A   14/999,032   US-14999032   US20140999032      ──▶   US-14999032
    CN-201480000788-A   ZL201480000788.4                              ──▶   CN-201480000788
    KR-20130121923-A    10-2013-0121923                               ──▶   KR-1020130121923
    EP1000000B1         EP 1 000 000 B1                               ──▶   EP-1000000-B1

The spellings are those of the offices, of DOCDB and Google (year before or after the serial number), of the
EPO's "epodoc" format, and of WIPO ST.13 (15 digits: type, year, serial). Sources: WIPO Handbook, ST.13 and
parts 7.2.1 (application numbers) and 7.2.6 (publication numbers); the EPO's concordance of number formats. A
number that fits none of its office's patterns stays as it is.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

ERAS = {"明": 1867, "大": 1911, "昭": 1925, "平": 1988, "令": 2018, "S": 1925, "H": 1988, "R": 2018}
"""The year before the first of each Japanese era."""
ERA_LETTERS = {"昭": "S", "平": "H", "令": "R"}

US_SERIES = {
    2: 1935, 3: 1948, 4: 1960, 5: 1970, 6: 1979, 7: 1987, 8: 1993, 9: 1998, 10: 2001, 11: 2004,
    12: 2007, 13: 2010, 14: 2013, 15: 2014, 16: 2018, 17: 2020, 18: 2022, 19: 2024,
}  # fmt: skip
"""Series codes of United States applications and the year in which each began; its serial numbers count from
1, those of the series before are high in that year."""

_CODES = """
AE AL AM AP AR AT AU AZ BA BD BE BG BH BN BO BR BY BZ CA CH CL CN CO CR CS CU CY CZ DD DE DK DO DZ EA EC
EE EG EM EP ES FI FR GB GC GE GH GR GT HK HN HR HU IB ID IE IL IN IQ IR IS IT JM JO JP KE KG KH KP KR KW
KZ LA LK LT LU LV LY MA MC MD ME MG MK MM MN MO MT MW MX MY MZ NG NI NL NO NZ OA OM PA PE PH PK PL PT PY
QA RO RS RU SA SD SE SG SI SK SM SU SV SY TH TJ TM TN TR TT TW TZ UA UG US UY UZ VE VN WO YU ZA ZM ZW
"""
OFFICES = frozenset(_CODES.split())
"""Codes of WIPO ST.3."""

PUBLICATION = re.compile(
    r"(?:(?P<office>(?!RE|PP|PI|AI|ZL)[A-Z]{2})[-/\s]*)?"
    r"(?P<number>(?:(?:RE|PP|PI|AI|WO|ZL|[A-Z])[-\s]*)?\d(?:[\d\s,./-]*\d)?|[^A-Z]*[昭平令特再][^A-Z]*?\d+号?(?:公報)?)"
    r"[-\s]*(?P<kind>[A-Z]\d{0,2})?(?:-\d{8})?"
)
"""Office, number and kind code, and the date that Lens and others write after them."""


class Publication(NamedTuple):
    """A publication number in parts: office, number, kind code or None."""

    office: str
    number: str
    kind: str | None

    @property
    def id(self) -> str:
        """As a record's id writes it: `US-8930553-B2`."""
        return "-".join(filter(None, self))


def application(number: str | None, office: str | None = None, kind: str | None = None) -> str | None:
    """An application number with its office, e.g. `US-14999032`, without check digit; None if there is none.

    `office` is the source's, and stands in the number itself too in many; `kind` is the kind code of DOCDB
    (`A`, `U` utility model, `P` provisional, `F` design, `W` international).
    """
    text = re.sub(r"\s+", " ", (number or "").strip()).upper()
    if not text:
        return None
    international = _international(text, office, kind)
    if international:
        return f"WO-{international}"
    named = re.match(r"([A-Z]{2})(?=[-\s]*(?:[A-Z]?\d))[-\s]*", text)
    if named and named[1] not in ("ZL", "PP", "RE"):
        office, text = named[1], text[named.end() :]
    ending = re.search(r"(?<=\d)[-\s]*([A-Z]\d?)$", text)
    if ending and (ending[1] != "X" or re.search(r"[-\s]X$", text)):  # X is a check digit too
        kind, text = kind or ending[1], text[: ending.start()]
    if office not in OFFICES:
        office = _office_of(text)
    form = APPLICATIONS.get(office or "")
    found = form(text, kind or "") if form else None
    if form is None and office in OFFICES and text.isdigit():
        found = text
    return f"{office}-{found}" if found else "-".join(filter(None, (None if named else office, number)))


def publication(number: str | None, office: str | None = None, kind: str | None = None) -> Publication | None:
    """A publication number in parts; None if its office is unknown or it has no digits."""
    text = re.sub(r"\s+", " ", (number or "").strip()).upper()
    found = PUBLICATION.fullmatch(text.lstrip("/- "))
    if found is None:
        return None
    office = found["office"] or office or _office_of(text)
    if office not in OFFICES:
        return None
    kind = kind or found["kind"]
    form = PUBLICATIONS.get(office)
    own = form(found["number"], kind or "") if form else None
    return Publication(office, own or re.sub(r"[\s,./]", "", found["number"]), kind)


def publication_key(number: str | None) -> str | None:
    """Office and number of a publication without kind code and leading zeros, e.g. `US8930553`, by which
    publications are compared; None if the text is not such a number."""
    found = publication(number)
    digits = found.number.lstrip("0") if found else ""
    return f"{found.office}{digits}" if found and len(re.sub(r"\D", "", digits)) >= 4 else None


def _office_of(text: str) -> str | None:
    """The office of a number that names none, where its words or letters tell it."""
    if re.match(r"[特実實再昭平令]", text):
        return "JP"
    if re.match(r"ZL", text):
        return "CN"
    return "US" if re.fullmatch(r"\d\d/\d{3},?\d{3}", text) else None


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def _year(short: str, pivot: int = 50) -> str:
    """The year of its last two digits."""
    return ("19" if int(short) >= pivot else "20") + short


def _international(text: str, office: str | None, kind: str | None) -> str | None:
    """`PCT/US03/12345`, `US-2003012345-W`, `WO2003US12345` as `US2003012345`."""
    found = re.match(r"PCT[/\s-]*([A-Z]{2})[/\s-]*(\d{4}|\d\d)[/\s-]*(\d{5,6})$", text)
    if found:
        year = found[2] if len(found[2]) == 4 else _year(found[2])
        return f"{found[1]}{year}{found[3].zfill(6)}"
    found = re.fullmatch(r"WO[-\s]*(\d{4})([A-Z]{2})(\d{5,6})[-\s]*[AW]?", text)
    if found:
        return f"{found[2]}{found[1]}{found[3].zfill(6)}"
    found = re.fullmatch(r"(?:([A-Z]{2})[-\s]*)?(\d{4})(\d{6})[-\s]*(W?)", text)
    if found and (found[4] or kind == "W") and (found[1] or office):
        return f"{found[1] or office}{found[2]}{found[3]}"
    found = re.fullmatch(r"(?:WO-)?([A-Z]{2})(\d{4})(\d{6})", text)
    return f"{found[1]}{found[2]}{found[3]}" if found and (office == "WO" or text.startswith("WO")) else None


def _st13(text: str) -> tuple[str, str, str] | None:
    """Type, year and serial number of WIPO ST.13: two, four and nine digits."""
    found = re.fullmatch(r"(\d\d)[\s-]?((?:19|20)\d\d)[\s-]?(\d{9})", text)
    return (found[1], found[2], found[3]) if found else None


def _us_application(text: str, kind: str) -> str | None:
    if st13 := _st13(text):
        return st13[2][1:]
    digits = _digits(text)
    if re.match(r"\d\d?\s*/", text):
        series, serial = text.split("/", 1)
        return _digits(series).zfill(2) + _digits(serial).zfill(6) if len(_digits(serial)) <= 6 else None
    if len(digits) == 12 and digits[:2] in ("19", "20"):  # DOCDB since 2011: year, series, serial
        return digits[4:]
    if len(digits) == 11 and digits[:2] in ("19", "20") and digits[4] == "0":  # epodoc: year, serial
        return _us_series(int(digits[:4]), digits[5:], kind)
    if len(digits) == 8 and kind:  # DOCDB before 2011: serial, year
        return _us_series(int(_year(digits[6:], 20)), digits[:6], kind)
    return digits if len(digits) == 8 else None


def _us_series(year: int, serial: str, kind: str) -> str | None:
    if kind[:1] == "P":
        return ("60" if year < 2007 or (year == 2007 and serial >= "500000") else "61") + serial
    if kind[:1] in ("F", "S"):
        return ("29" if year > 1992 else "07") + serial
    series = [code for code, since in US_SERIES.items() if since <= year]
    if not series:
        return None
    last = series[-1]
    begins = US_SERIES[last] == year and last > 2
    return f"{last - 1 if begins and serial >= '500000' else last:02d}{serial}"


def _ep_application(text: str, _kind: str) -> str | None:
    if st13 := _st13(text):
        return st13[1][2:] + st13[2][3:]
    digits = _digits(re.sub(r"\.\s*\d$", "", text))
    if len(digits) == 11 and digits[:2] in ("19", "20"):  # epodoc: EP20050255002
        return digits[2:4] + digits[5:]
    if len(digits) == 9:  # with its check digit
        return digits[:8]
    return digits if len(digits) == 8 else None


def _cn_application(text: str, _kind: str) -> str | None:
    text = re.sub(r"^ZL\s*", "", text).replace(" ", "")
    found = re.fullmatch(r"(\d{12}|\d{8})\.?([\dX])?", text)
    if found and not (len(found[1]) == 8 and len(text) == 11):
        return found[1]
    if re.fullmatch(r"\d{11}", text):  # epodoc: year, type, serial
        year, rest = text[:4], text[4:]
        return f"{year[2:]}{rest[0]}{rest[2:]}" if int(year) < 2003 else f"{year}{rest[0]}{rest[1:].zfill(7)}"
    return None


def _kr_application(text: str, kind: str) -> str | None:
    digits = _digits(text)
    if len(digits) == 15 and (st13 := _st13(text)):
        return st13[0] + st13[1] + st13[2][2:]
    if len(digits) == 11:
        return ("20" if kind[:1] in ("U", "Y") else "10") + digits
    return digits if len(digits) == 13 and digits[:2] in ("10", "20", "30") else None


def _jp_application(text: str, kind: str) -> str | None:
    utility = "U" if re.match(r"[実實]|U\d", text) or kind[:1] in ("U", "Y") else ""
    if st13 := _st13(text):
        return utility + st13[1] + st13[2][3:]
    if found := _japanese(text):
        return f"{utility}{found[0]}{found[1].zfill(6)}"
    digits = _digits(text)
    if len(digits) == 10 and digits[:2] in ("19", "20"):
        return utility + digits
    if len(digits) == 11 and digits[:2] in ("19", "20") and digits[4] == "0":  # epodoc
        return f"{utility}{digits[:4]}{digits[5:]}"
    if len(digits) == 8 and kind:  # DOCDB before 2000: serial, year
        return f"{utility}{_year(digits[6:], 20)}{digits[:6]}"
    return None


def _japanese(text: str) -> tuple[int, str] | None:
    """Year and serial number of `特願平10-123456`, `H10-123456`, `特願2019-165329`."""
    found = re.search(r"(昭|平|令|\b[SHR])[和成]?\s*(\d{1,2})\D{1,8}?(\d{1,6})号?$", text)
    if found:
        return ERAS[found[1]] + int(found[2]), found[3]
    found = re.search(r"(?<!\d)((?:19|20)\d\d)\D{1,8}?(\d{1,6})号?$", text)
    return (int(found[1]), found[2]) if found else None


def _de_application(text: str, _kind: str) -> str | None:
    if st13 := _st13(text):
        return st13[0] + st13[1] + st13[2][3:]
    text = re.sub(r"^[PG]\s*(?=\d)", "", text)
    text = re.sub(r"\s*[.-]\s*\d$", "", text) if not re.search(r"\.\d{3}", text[-5:]) else text
    digits = _digits(text)
    if len(digits) == 11 and digits[:2] in ("19", "20"):  # epodoc: year, type, serial
        return f"{digits[4:6]}{digits[:4]}{digits[6:].zfill(6)}"
    return digits if len(digits) in (7, 8, 12) else digits[:12] if len(digits) == 13 else None


def _gb_application(text: str, _kind: str) -> str | None:
    digits = _digits(re.sub(r"\.\s*\d$", "", text))
    if len(digits) == 11 and digits[:2] in ("19", "20"):  # epodoc: year, serial
        return digits[2:4] + digits[6:]
    return digits if len(digits) == 7 else None


def _tw_application(text: str, _kind: str) -> str | None:
    digits = _digits(text)
    if len(digits) == 11 and digits[:2] in ("19", "20"):  # epodoc: year, serial
        return f"{int(digits[:4]) - 1911:03d}{digits[5:]}"
    return digits.zfill(9) if len(digits) in (8, 9) else None


Form = Callable[[str, str], str | None]
APPLICATIONS: Mapping[str, Form] = {
    "US": _us_application,
    "EP": _ep_application,
    "CN": _cn_application,
    "KR": _kr_application,
    "JP": _jp_application,
    "DE": _de_application,
    "GB": _gb_application,
    "FR": _gb_application,
    "TW": _tw_application,
}


def _us_publication(text: str, _kind: str) -> str | None:
    found = re.fullmatch(r"(RE|PP|AI|[DHTX])?0*(\d+)", re.sub(r"[\s,/.-]", "", text))
    if found is None:
        return None
    letters, digits = found[1] or "", found[2]
    if not letters and len(digits) == 10 and digits[:2] == "20":
        return f"{digits[:4]}0{digits[4:]}"  # DOCDB leaves a zero out
    return letters + digits


def _seven(text: str, _kind: str) -> str | None:
    digits = re.sub(r"[\s,./-]", "", text)
    return digits.zfill(7) if digits.isdigit() else None


def _russian(text: str, _kind: str) -> str | None:
    digits = re.sub(r"[\s,./-]", "", text)
    return digits.removeprefix("0") if len(digits) == 8 and digits.isdigit() else None


def _wo_publication(text: str, _kind: str) -> str | None:
    digits = re.sub(r"[\s,./-]", "", text)
    if not digits.isdigit():
        return None
    if len(digits) == 7:  # until 2001: year of two digits, five of the serial
        return f"{_year(digits[:2])}0{digits[2:]}"
    if len(digits) == 8:
        return _year(digits[:2]) + digits[2:]
    return digits[:4] + digits[4:].zfill(6) if len(digits) in (9, 10) else None


def _kr_publication(text: str, kind: str) -> str | None:
    digits = re.sub(r"[\s-]", "", text)
    if len(digits) == 13 and digits[:2] in ("10", "20"):  # type, and a year or the number and 0000
        is_grant = kind[:1] in ("B", "C", "Y") or (not kind and digits.endswith("0000"))
        return digits[:9] if is_grant else digits[2:]
    return digits if digits.isdigit() else None


def _jp_publication(text: str, _kind: str) -> str | None:
    if found := re.match(r"WO(\d{4})[/-]?(\d{1,6})$", text) or re.match(r"再表(\d{4})[/-](\d{1,6})", text):
        return f"WO{found[1]}{found[2].zfill(6)}"
    if found := re.search(r"(昭|平|令|\b[SHR])[和成]?\s*(\d{2}|\d(?=\D))[-\s]?(\d{1,6})号?(?:公報)?$", text):
        letter = ERA_LETTERS.get(found[1], found[1])
        return f"{letter}{found[2].zfill(2)}{found[3].zfill(6)}"
    if found := re.search(r"(?<!\d)((?:19|20)\d\d)[-/](\d{1,6})号?(?:公報)?$", text):
        return found[1] + found[2].zfill(6)
    digits = re.sub(r"^特許第?|号(?:公報)?$|[\s,-]", "", text)
    return digits if digits.isdigit() else None


def _plain(text: str, _kind: str) -> str | None:
    return re.sub(r"^ZL|[\s,./-]", "", text) or None


PUBLICATIONS: Mapping[str, Form] = {
    "US": _us_publication,
    "EP": _seven,
    "GB": _seven,
    "FR": _seven,
    "RU": _russian,
    "WO": _wo_publication,
    "KR": _kr_publication,
    "JP": _jp_publication,
    "CN": _plain,
}
