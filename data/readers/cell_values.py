"""A row of a table as records: its cells in the record's notation.

A cell may be a text, a number, a date, a list, or Google's `[{"text": …, "language": …}]`, which gives one
record per language. HTML is stripped. Claims in one text are split if they are numbered 1, 2, 3 …; dates and
publication numbers in a known notation are converted to the record's; anything else stays unchanged.
"""

import datetime
import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any, cast

from data import claim_numbers, patent_numbers
from data.readers.column_mapping import (
    FIELDS,
    PARTS,
    TEXTS,
    Fields,
    Options,
    shown,
)
from data.record import Record, Rejected, citations, numbers_column, without_heading

MARKUP = re.compile(
    r"</(?:p|div|span|sub|sup|b|i|u|em|strong|ul|ol|li|table|tr|td|h\d|a|claim|claim-text|heading|figref)>|<br\s*/?>",
    re.IGNORECASE,
)
"""Only tags that cannot be mathematics: `x<b and b>c` does not match."""

COUNT = re.compile(r"\((\d{1,4})\)\s+(?=\S)")
"""The number of a paragraph in the USPTO's public search."""

CLAIM_NUMBERS = ("num", "number", "claim_num", "claim_number", "claim_no")
"""Keys of an object in a list of claims."""

EMPTY = ("[]", "{}", "[{}]", "null", "NULL", "None", "nan", "NaN", "\\N")
"""Texts that stand for an empty cell in exports as CSV; not in columns that have a field's own name."""

LEAST_DIGITS = 4
"""A publication number has as many."""
KOREAN = re.compile(r"\d\d-\d{4}-\d{7}")


def records(
    row: Mapping[str, Any], fields: Fields, options: Options, source: str, name: str
) -> list[Record] | Rejected:
    """The records of one row, one per language; `name` begins its id if the table has none."""
    values: dict[str, Any] = {}
    texts: dict[str, dict[str | None, Any]] = {}
    for field, columns in fields.items():
        column = ""
        try:
            for column in columns:
                value = row.get(column)
                if is_absent(value) or (column != field and str(value).strip() in EMPTY):
                    value = None
                if field in (*TEXTS, PARTS):
                    _merge(texts.setdefault(field, {}), field, value, column)
                elif field == "ipc":
                    values["ipc"] = [*(values.get("ipc") or ()), *(_symbols(value) or ())] or None
                elif field == "cites":
                    values[field] = values.get(field) or _cites(value)
                elif field == "claim_numbers":
                    values[field] = _numbers(value)
                elif not values.get(field):
                    values[field] = _plain(field, column, value)
        except UnicodeEncodeError:
            return Rejected(source, "bad-encoding", f"column {column!r}: half a surrogate pair (\\ud800…)")
        except ValueError as error:
            return Rejected(source, "bad-value", f"column {column!r}: {error}")
    for language, part in texts.pop(PARTS, {}).items():
        texts.setdefault("description", {}).setdefault(language, part)
    localised = sorted({language for found in texts.values() for language in found if language})
    for found in texts.values():
        if None in found and localised:  # a plain text next to Google's
            language = values.get("language")
            found.setdefault(language if language in localised else localised[0], found.pop(None))
    if not any(texts.values()):
        return Rejected(source, "missing-text", "no title, abstract, claim or description")
    _complete(values, fields, options.defaults.get("office"))
    values["id"] = values["id"] or values.get("application_id") or f"{name}-{_digest(values, texts)}"
    values["source"] = values.get("source") or source
    values["ipc"] = list(dict.fromkeys(values.get("ipc") or ())) or None
    return [_record(values, texts, language, options) for language in _languages(texts)]


def is_absent(value: Any) -> bool:
    """Whether a cell is empty in one of the forms that exports give it: null, NaN, white space, an empty list
    or object, a list of these, or a localised text without text."""
    match value:
        case None:
            return True
        case float():
            return math.isnan(value)
        case str():
            return not value.strip()
        case list():
            return all(map(is_absent, value))
        case dict():
            return is_absent(value["text"]) if "text" in value else all(map(is_absent, value.values()))
    return False


def _merge(texts: dict[str | None, Any], field: str, value: Any, column: str) -> None:
    """Add a cell's texts by language: all sections of a description, and of other fields the first text."""
    for language, content in _by_language(value).items():
        found = _claims(content, column) if field == "claims" else _text(content, column)
        if found and field == PARTS and language in texts:
            texts[language] += f"\n{found}"
        elif found:
            texts.setdefault(language, found)


def _by_language(value: Any) -> dict[str | None, Any]:
    """Google's localised texts by language; any other value under None."""
    items = [value] if isinstance(value, dict) else value
    if isinstance(items, list) and items and all(isinstance(item, dict) and "text" in item for item in items):
        several = len(items) > 1 or (items is value and any(key in items[0] for key in CLAIM_NUMBERS))
        if several and not any("language" in item for item in items):
            return {None: value}  # a list of texts, such as claims
        found: dict[str | None, Any] = {}
        for item in items:
            if not is_absent(item):
                found.setdefault((item.get("language") or "").lower() or None, item["text"])
        return found
    return {None: value}


def _text(value: Any, column: str) -> str | None:
    """A cell as text; ValueError if it is something else."""
    match value:
        case None:
            return None
        case datetime.date():  # including datetime
            return value.isoformat()[:10]
        case float() if math.isnan(value):  # an empty cell of pandas
            return None
        case float() if value.is_integer():
            return str(int(value))
        case list() if all(item is None or isinstance(item, str) for item in value):  # paragraphs
            text = "\n".join(item for item in value if item and item.strip())
        case bool() | list() | dict():
            raise ValueError(f"expected text, not {shown([value])}")
        case str():
            text = value
        case _:
            text = str(value)
    text.encode("utf-8")  # JSON can encode half a surrogate pair, which UTF-8 cannot
    if column.lower().endswith("html"):
        text = _of_public_search(strip_markup(text))
    elif MARKUP.search(text):
        text = strip_markup(text)
    return text if text.strip() else None


def _of_public_search(text: str) -> str:
    """A text of the USPTO's public search with its signs (`CO.sub.2`) in Unicode, and without the numbers
    that the search prints before paragraphs: `(1)`, `(2)` …"""
    from data.readers.offices import uspto_aps

    lines = text.split("\n")
    starts = [COUNT.match(line) for line in lines]
    if 2 * sum(map(bool, starts)) >= len(lines):
        expected = next((int(start[1]) for start in starts if start), 0)
        for place, start in enumerate(starts):
            if start and int(start[1]) == expected:
                lines[place] = lines[place][start.end() :]
                expected += 1
    return uspto_aps.plain("\n".join(lines))


def strip_markup(text: str) -> str:
    """The text of a piece of HTML: one line per paragraph, indices and table rows written out."""
    import lxml.html

    from data.readers.offices import patent_xml

    root = lxml.html.fragment_fromstring(text, create_parent="div")
    for element in list(root.iter("script", "style", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "div")):
        if element.tag in ("script", "style"):
            element.drop_tree()
        else:  # the element names of patent layout
            element.tag = "row" if element.tag == "tr" else "p"
    patent_xml.write_layout(root, {})
    return patent_xml.text(root) or ""


def _claims(value: Any, column: str) -> dict[int, str]:
    """Claims from a list (of texts, or of objects with their text), a JSON list, or one numbered text."""
    value = _json_list(value)
    if not isinstance(value, list):
        text = _text(value, column)
        return claim_numbers.split(text) if text else {}
    texts = (_text(_claim(item), column) or "" for item in value)
    return claim_numbers.numbered(texts, map(_claim_number, value), partly=False)


def _cites(value: Any) -> list[str] | None:
    """Publication numbers from a list (of texts, or of Google's objects) or from one text."""
    value = _json_list(value)
    items = value if isinstance(value, list) else re.split(r"\s*[|;；\n]\s*|,\s+", _text(value, "") or "")
    numbers = (item.get("publication_number") if isinstance(item, dict) else item for item in items)
    return citations(number for number in numbers if isinstance(number, str))


def _numbers(value: Any) -> list[int] | None:
    value = _json_list(value)
    if value is None or (isinstance(value, list) and all(type(item) is int for item in value)):
        return value
    raise ValueError(f"expected a list of numbers, not {shown([value])}")


def _claim_number(item: Any) -> str | None:
    found = [item[key] for key in CLAIM_NUMBERS if item.get(key)] if isinstance(item, dict) else []
    return str(found[0]) if found else None


def _claim(item: Any) -> Any:
    if isinstance(item, dict):
        item = item.get("text") or item.get("claim_text") or item.get("limitations")
        return "\n".join(map(str, item)) if isinstance(item, list) else item
    if item is not None and not isinstance(item, str):
        raise ValueError(f"expected a list of texts, not {shown([item])}")
    return item


def _symbols(value: Any) -> list[str] | None:
    """IPC symbols from a list (of texts, or of Google's `{"code": …, "first": …}`) or from one text."""
    from data.readers.offices import patent_xml

    value = _json_list(value)
    if isinstance(value, list):
        if all(isinstance(item, dict) for item in value):
            ordered = sorted(value, key=lambda item: not item.get("first"))
            value = [item.get("code") for item in ordered]
        if not all(isinstance(item, str) for item in value):
            raise ValueError(f"expected a list of texts, not {shown([value])}")
        symbols = [symbol for symbol in (_text(item, "") for item in value) if symbol]
    else:
        symbols = [symbol for symbol in re.split(r"\s*[|;；，,\n]\s*", _text(value, "") or "") if symbol]
    return [(patent_xml.ipc_symbols([symbol]) or [symbol])[0] for symbol in symbols] or None


def _json_list(value: Any) -> Any:
    """The list, if a cell of CSV is a JSON list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value  # a text that begins with a bracket
    return value


def _plain(field: str, column: str, value: Any) -> str | None:
    """A field that is not a text; in the record's notation, unless the column has the field's own name."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    text = _text(value, "")
    if text is None or column == field:
        return text
    match field:
        case "date" | "filed" | "priority":
            found = re.match(r"(\d{4})[-./年]?(\d{1,2})[-./月]?(\d{1,2})(?!\d)", text.strip())
            return (
                "-".join((found[1], found[2].zfill(2), found[3].zfill(2)))
                if found
                else text
                if field == "date"
                else None
            )
        case "language":
            return text.lower()
        case _:
            return text.strip()


def _digest(values: Mapping[str, Any], texts: Mapping[str, Mapping[str | None, Any]]) -> str:
    """A digest of a row's content: rows of equally named files in two folders get different ids, and a row
    keeps its id when its folder is moved."""
    content = json.dumps([values, [[field, *found.items()] for field, found in texts.items()]])
    return hashlib.blake2b(content.encode(), digest_size=6).hexdigest()


def _complete(values: dict[str, Any], fields: Fields, default: str | None) -> None:
    """Write numbers in the record's notation, and set office and kind from them; `default` is the office of
    numbers without one."""
    number = (values.setdefault("id", None) or "").strip()
    at = values.get("office") or ("KR" if KOREAN.fullmatch(number) else default)
    found = patent_numbers.publication(number, at, values.get("kind"))
    if found and len(re.sub(r"\D", "", found.number)) >= LEAST_DIGITS:
        if fields["id"][0] != "id":
            values["id"] = found.id
        if not re.fullmatch("[A-Z]{2}", values.get("office") or "") and "office" not in fields.get(
            "office", ()
        ):
            values["office"] = found.office
        values["office"] = values.get("office") or found.office
        values["kind"] = values.get("kind") or found.kind
    if application := values.get("application_id"):
        values["application_id"] = patent_numbers.application(application, values.get("office") or default)


def _languages(texts: Mapping[str, Mapping[str | None, Any]]) -> list[str | None]:
    """The languages that have more than a title or, if there are none, those of the titles."""
    found = {language for field in TEXTS[1:] for language in texts.get(field, ())}
    return sorted(found or set(texts["title"]), key=str)


def _record(
    values: Mapping[str, Any],
    texts: Mapping[str, Mapping[str | None, Any]],
    language: str | None,
    options: Options,
) -> Record:
    record = {field: values.get(field) for field in FIELDS}
    record |= {field: found.get(language) for field, found in texts.items()}
    if claims := record["claims"]:
        numbers = values.get("claim_numbers") or ()
        record["claims"] = list(claims.values())
        record["claim_numbers"] = numbers_column(numbers if len(numbers) == len(claims) else claims)
    else:
        record["claims"] = record["claim_numbers"] = None
    record["language"] = language or record["language"] or options.defaults.get("language")
    if record["language"] is None:
        text = next(filter(None, (record[field] for field in ("abstract", "description", "title", "claims"))))
        record["language"] = language_of_script(text if isinstance(text, str) else text[0])
    record["abstract"] = without_heading(record["abstract"])
    dates = [date for date in (record["priority"], record["filed"]) if date]
    record["priority"] = min(dates, default=None)
    missing = {field: value for field, value in options.defaults.items() if record[field] is None}
    return cast(Record, record | missing)


def language_of_script(text: str) -> str | None:
    """The language if its script identifies it: Korean, Japanese, Chinese; None for all others."""
    letters = [character for character in text[:500] if character.isalpha()]

    def share(first: str, last: str) -> float:
        return sum(first <= letter <= last for letter in letters) / max(len(letters), 1)

    if share("가", "힣") > 0.3:
        return "ko"
    if share("぀", "ヿ") > 0.1:
        return "ja"
    return "zh" if share("一", "鿿") > 0.3 else None
