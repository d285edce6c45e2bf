"""The claims' own numbers: read from what the source prints or declares, and kept with the claims.

    1-18. (canceled)                          {19: "A brush …",
    19. A brush with two handles.      ──▶     20: "The brush of claim 19, …"}
    20. The brush of claim 19, …

References between claims use these numbers, so a claim keeps its number when others are left out. In a record
they are the column `claim_numbers`, which is null if they are 1, 2, 3 ….
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from data.record import Record, numbers_column

Claims = Mapping[int, str]
"""The text of each claim by its number, ascending."""

_MARK = r"[.)）、．:：]"
NUMBER = re.compile(rf"\s*(\d{{1,4}})(?:\s*\.?\s*[-–—~～]\s*(\d{{1,4}}))?\s*{_MARK}\s*")
"""A number, or a range of cancelled claims, before a claim."""

LOCANT = re.compile(r"\d+(?:[,′']\s*\d+)*[′']?\s*-")
"""The start of a chemical name: `3,5-dimethyl…`."""

CANCELLED = re.compile(
    r"(?:claims?)?[\W\d_]*(?:(?:to|and|through)[\W\d_]+)*(?:currently |previously )?"
    r"(?:cancel+ed|withdrawn|deleted|not entered|void|gestrichen|entfällt|supprimée?s?|annulée?s?"
    r"|已?删除|已?刪除|削除|삭제)(?: without prejudice(?: or disclaimer)?| herein)?[\W_]*"
    r"|[\W\d_]*\((?:currently |previously )?cancel+ed[^()]*\).*",
    re.IGNORECASE | re.DOTALL,
)
"""A claim that says that it is cancelled; by 37 CFR 1.121(c) it has no text, and what follows it does not
count."""

STATEMENT = re.compile(
    r"\bclaim(?:s|ed)?\b|权利要求|權利要求|申請專利範圍|申请专利范围|特許請求の範囲|請求の範囲|청구\s*범위"
    r"|ansprüche?\b|\brevendications?\b|\breivindica|\brivendica|\bconclusies\b|формула изобретения",
    re.IGNORECASE,
)
LONGEST_STATEMENT = 300
"""Characters of the words before the claims: `What is claimed is:`, `Patentansprüche`."""

_OFFICE = r"[【\[]?(?:청구항|請求項|请求项|权利要求|권리요구)\s*"
_RANGE = r"(\d{1,4})(?:\s*[-–—~～]\s*(\d{1,4}))?"
AT_LINE = re.compile(
    rf"^[ \t]*(?:{_OFFICE}(\d{{1,4}})(?:\s*[】\].．、:：]|(?=\s)|$)|{_RANGE}\s*[.．、:：](?!\d))\s*",
    re.MULTILINE,
)
BRACKET_AT_LINE = re.compile(rf"^[ \t]*()?{_RANGE}\s*[)）]\s*", re.MULTILINE)
IN_LINE = re.compile(rf"(?:\A\s*|(?<=[.。．])\s*|(?<=ed\))\s+)()?{_RANGE}\s*[.．、](?!\d)\s*")
"""A claim's number at the start of a line, the same with a bracket, and one after the end of the claim before
it. Their groups: the number after a word, the number, the end of a range."""


def of_record(record: Record) -> dict[int, str]:
    """The record's claims by their numbers."""
    claims = record["claims"] or []
    return dict(zip(record["claim_numbers"] or range(1, len(claims) + 1), claims, strict=True))


def with_claims(record: Record, claims: Claims) -> Record:
    """The record with these claims instead of its own; empty ones are left out."""
    kept = {number: text for number, text in claims.items() if text}
    return {**record, "claims": list(kept.values()) or None, "claim_numbers": numbers_column(kept)}


def printed(claims: Claims) -> str:
    """The claims with their numbers, one per line."""
    return "\n".join(f"{number}. {claim}" for number, claim in claims.items())


def numbered(
    texts: Iterable[str], declared: Iterable[str | None] = (), *, partly: bool = True
) -> dict[int, str]:
    """Claims by their numbers, without these, the cancelled ones and empty texts.

    The number is what a text begins with, else what the source declares beside it (`00019`, or `01-18`),
    else the place after the claim before. If the numbers do not ascend, the declared ones count, else the
    places. `partly` is false where a text may begin with a number of its own: then the numbers are those of
    the claims only if every text begins with one.
    """
    found, beside = list(texts), [_declared(number) for number in declared]
    if len(found) > 1 and _is_statement(found[0]) and NUMBER.match(found[1]):
        found, beside = found[1:], beside[1:]
    beside += [None] * (len(found) - len(beside))
    if all(beside):  # what has a number and no text, such as a heading taken for a claim, repeats numbers
        places = [place for place, text in enumerate(found) if text.strip()]
        found, beside = [found[place] for place in places], [beside[place] for place in places]
    starts = _printed(found, beside)
    if not partly and not all(starts):
        starts = [None] * len(found)
    bare = [text[start.end() :] if start else text for text, start in zip(found, starts, strict=True)]
    own = [(int(s[1]), int(s[2] or s[1])) if s else given for s, given in zip(starts, beside, strict=True)]
    numbers = _ascending(own) or _ascending(beside) or range(1, len(found) + 1)
    return {
        number: text
        for number, text, whole in zip(numbers, bare, found, strict=True)
        if text.strip() and not CANCELLED.fullmatch(whole)
    }


def split(text: str) -> dict[int, str]:
    """The claims of one text, by their numbers, if these count without a gap from 1, or ascend from the first
    line on; else the text as one claim. Words before the first number that only announce the claims are left
    out."""
    announced = None if AT_LINE.match(text) else re.match(r"\D+(?=\d)", text)
    if announced and _is_statement(announced[0]):
        text = text[announced.end() :]
    best: dict[int, str] = {}
    unclear = False
    for pattern in (AT_LINE, BRACKET_AT_LINE, IN_LINE):
        found = list(pattern.finditer(text))
        if not found or text[: found[0].start()].strip():
            continue
        spans = [(int(n[1] or n[2]), int(n[3] or n[1] or n[2])) for n in found]
        ends = [number.start() for number in found[1:]] + [len(text)]
        claims = [text[number.end() : end].strip() for number, end in zip(found, ends, strict=True)]
        numbers = _ascending(spans, gaps=pattern is AT_LINE and len(spans) > 1)
        if numbers is None or not all(claims):
            unclear = True
        elif len(claims) > len(best):
            best = dict(zip(numbers, claims, strict=True))
    if not best or (unclear and len(best) == 1):
        return {1: text}
    return {number: claim for number, claim in best.items() if not CANCELLED.fullmatch(claim)}


def unnumbered(claims: Claims) -> Claims:
    """The claims without the number before each, if every one has its own."""
    starts = _printed(list(claims.values()), [(number, number) for number in claims])
    if not all(start and int(start[1]) == number for start, number in zip(starts, claims, strict=True)):
        return claims
    return {n: text[start.end() :] for start, (n, text) in zip(starts, claims.items(), strict=True) if start}


def _is_statement(text: str) -> bool:
    """Whether a text only announces the claims."""
    return len(text) <= LONGEST_STATEMENT and bool(STATEMENT.search(text))


def _declared(number: str | None) -> tuple[int, int] | None:
    """The first and last number that a source declares: `00019`, `01-18`, `CLM-00019`."""
    found = re.fullmatch(r"\D*(\d{1,5})(?:-(\d{1,5}))?", number or "")
    return (int(found[1]), int(found[2] or found[1])) if found else None


def _printed(texts: Sequence[str], beside: Sequence[tuple[int, int] | None]) -> list[re.Match[str] | None]:
    """The number with which each text begins.

    A number before a digit (`1.5 mm`, `1.3D printer`) is one if it is expected here and a chemical name
    follows, or if every text begins with the expected number and none has a space after it.
    """
    found = [NUMBER.match(text) for text in texts]
    expected = [given[0] if given else place for place, given in enumerate(beside, start=1)]
    agrees = [bool(start and int(start[1]) == n) for start, n in zip(found, expected, strict=True)]
    close = len(texts) > 1 and all(agrees) and not any(start[0][-1:].isspace() for start in found if start)

    def is_number(text: str, end: int, agreed: bool) -> bool:
        return not text[end : end + 1].isdigit() or close or (agreed and bool(LOCANT.match(text, end)))

    return [
        start if start and is_number(text, start.end(), agreed) else None
        for text, start, agreed in zip(texts, found, agrees, strict=True)
    ]


def _ascending(spans: Sequence[tuple[int, int] | None], gaps: bool = True) -> list[int] | None:
    """The first number of each span, that after the span before where there is none; None if they do not
    ascend, or, without `gaps`, do not follow each other from 1."""
    numbers: list[int] = []
    last = 0
    for span in spans:
        first, end = span or (last + 1, last + 1)
        if not last < first <= end or not (gaps or first == last + 1):
            return None
        numbers.append(first)
        last = end
    return numbers
