"""Which column of a table holds which field of the record.

In this order: the user's mapping (`columns`, `text_field`), a column with the field's own name, the names in
ALIASES; if several columns hold one field, the first with a value counts. Names are compared without case,
width, spaces and punctuation, so `公开(公告)号`, `Publication Number` and `publicationNumber` need no
separate entries. If no column holds text, the column with the longest texts is used, if these are sentences
and its name is not that of people, addresses, classes, numbers or dates; the run and `inspect` say so.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data.record import Record, Rejected

FIELDS = tuple(Record.__annotations__)
TEXTS = ("title", "abstract", "claims", "description")
PARTS = "parts"
"""In addition to the fields: columns that are sections of a description, joined if no column has all of
it."""

PROSE_CHARACTERS = 50
"""Minimum mean length of a column with an unknown name to be taken as the text."""

NO_TEXT = re.compile(
    r"name|person|people|inventor|applicant|assignee|author|owner|holder|proprietor|agent|attorney|examiner"
    r"|address|city|country|street|region|class|ipc|cpc|uspc|locarno|code|number|serial|date|year|url|link|path"
    r"|file|email|phone|fax|status|citation|reference|keyword"
    r"|人$|申请人|申請人|发明人|發明人|代理|作者|地址|住所|分类|分類|号$|號$|编号|番号|日期|日$|链接|网址"
    r"|発明者|出願人|権利者|著者|発明人|発明家|氏名|名前"
    r"|발명자|출원인|권리자|대리인|성명|주소|분류|번호|일자|국가"
    r"|автор|правооблад|заявител|патентооблад|изобретател|адрес|класс|номер|дата|ссылк|имя"
    r"|erfinder|anmelder|inhaber|anschrift|klasse|nummer|datum|vertreter|inventeur|demandeur|titulaire|adresse"
    r"|numéro|inventor|solicitante|titular|dirección|clase|número|fecha|autor",
    re.IGNORECASE,
)
"""Parts of the names of columns that hold no running text, in the languages of the offices."""

SENTENCE = re.compile(r"[^\W\d_]{2,}[^.!?。！？]{20,}[.!?。！？]")

ALIASES: dict[str, tuple[str, ...]] = {
    "id": (
        "publication_number", "publication_numbers", "guid", "公开（公告）号", "授权公告号",
        "公告号", "公开号", "文献号", "公開公告號", "공개번호", "공고번호", "등록번호", "公開番号",
        "登録番号", "patent_number", "patent_id", "pgpub_id", "document_number", "专利号",
    ),
    "office": (
        "country_code", "office", "publication_country", "country", "公开国家", "公开国家/地区",
        "国家代码", "国家", "受理局", "국가코드", "국가", "발행국", "国コード",
    ),
    "kind": (
        "kind_code", "wipo_kind", "文献种类代码", "文献类型", "문헌코드", "문헌종류코드",
    ),
    "language": (
        "lang", "language_code", "language_indicator", "语言", "语种", "언어",
    ),
    "date": (
        "publication_date", "date_published", "公开（公告）日", "公开（公告）日期", "授权公告日",
        "公告日", "公开日", "공개일자", "공개일", "공고일자", "등록일자", "등록일", "公開日",
        "発行日", "patent_issue_date", "patent_date", "grant_date",
    ),
    "application_id": (
        "application_number", "application_number_formatted", "appl_id", "申请号", "申請號",
        "출원번호", "出願番号",
    ),
    "family_id": (
        "family_identifier_cur", "docdb_family_id", "simple_family_id", "同族编号", "패밀리번호",
    ),
    "filed": (
        "filing_date", "filing/creation date", "application_date", "date_filed", "申请日", "申请日期",
        "申請日", "출원일자", "출원일", "出願日",
    ),
    "priority": (
        "priority_date", "earliest_priority_date", "优先权日", "最早优先权日", "優先權日", "우선일",
        "우선권주장일자", "優先日",
    ),
    "cites": (
        "citation", "citations", "cited_patents", "引用专利", "引证专利", "인용특허", "引用文献番号",
    ),
    "title": (
        "title_localized", "invention_title", "patent_title", "标题", "发明名称", "专利名称",
        "名称", "题名", "发明创造名称", "標題", "發明名稱", "專利名稱", "발명의명칭",
        "발명의명칭(국문)", "발명의명칭(한글)", "발명명칭", "発明の名称",
    ),
    "abstract": (
        "abstract_localized", "abstract_html", "abstract_text", "patent_abstract",
        "摘要", "摘要（中文）", "中文摘要",
        "요약", "초록", "요약(국문)", "要約",
    ),
    "claims": (
        "claims_localized", "claims_html", "claims_text", "claim_text", "claim", "权利要求", "权利要求书",
        "全部权利要求", "權利要求", "申請專利範圍", "청구항", "청구범위", "특허청구범위",
        "전체청구항", "請求項", "特許請求の範囲", "独立权利要求", "首项权利要求", "主权利要求",
        "主权项", "대표청구항", "독립항", "first_claim",
    ),
    "description": (
        "full_description", "description_localized", "description_text", "说明书", "说明书全文",
        "說明書", "명세서", "발명의설명", "발명의상세한설명", "상세설명", "明細書", "text",
        "full_text",
    ),
    "ipc": (
        "main_ipcr_label", "ipcr_labels", "IPC主分类号", "IPC主分类", "主分类号", "主IPC",
        "ipc_codes", "ipc_code", "ipc_code_flattened", "IPC分类号", "IPC分类", "国际专利分类号",
        "IPC号", "메인IPC", "대표IPC", "IPC코드", "IPC분류", "국제특허분류", "国際特許分類",
        # The Cooperative Patent Classification refines the IPC: its symbols follow the IPC's.
        "main_cpc_label", "cpc_labels", "cpc", "cpc_codes", "cpc_code", "CPC主分类号", "CPC分类号",
        "CPC分类", "CPC코드", "CPC분류",
    ),
    PARTS: (
        "technical_field", "技术领域", "기술분야", "background", "background_text_html", "背景技术",
        "배경기술", "brief_html", "summary", "summary_of_invention", "summary_text", "发明内容", "발명의내용",
        "drawings", "draw_desc_text", "附图说明", "description_html", "detailed_description", "具体实施方式",
    ),
}  # fmt: skip
"""Other names of the fields, best first: HUPD, BIGPATENT, Google Patents in BigQuery, the USPTO's public
search, exports of Chinese, Korean and Japanese search services. `Source.columns` adds a user's own."""

Fields = Mapping[str, Sequence[str]]
"""Field to the columns that hold it, best first."""


@dataclass(frozen=True)
class Options:
    """A source's settings for tables and texts."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Column to field."""
    text_field: str | None = None
    """The column with the description."""
    layout: str = "documents"
    """For plain text: `documents` (one per file) or `paragraphs` (separated by blank lines)."""
    defaults: Mapping[str, str] = field(default_factory=dict)
    """Values of fields that a row does not have, e.g. `{"language": "en"}`."""
    encoding: str | None = None
    """The encoding of all files; None to recognise it."""
    guessed: set[str] = field(default_factory=set)
    """Filled while reading: columns with unknown names that were taken for the text."""
    notes: dict[str, str | None] = field(default_factory=dict)
    """Filled while reading, for `inspect`: each column's field, or None if it is not used."""

    def knows(self, names: Iterable[str]) -> bool:
        """Whether one of these is a column that a reader knows."""
        return is_known(names, self)


def map_columns(
    names: Sequence[str], options: Options, source: str, sample: Sequence[Mapping[str, Any]] = ()
) -> Fields | Rejected:
    """The columns of each field, or why the columns cannot be used; `sample` is some of the rows."""
    mapped = dict(options.columns)
    if options.text_field is not None:
        mapped[options.text_field] = "description"
    fields: dict[str, list[str]] = {}
    for name in names:
        if name in mapped:
            fields.setdefault(mapped[name], []).append(name)
    twice = [field for field, columns in fields.items() if len(columns) > 1]
    named = _by_field([name for name in names if name not in mapped])
    fields |= {field: columns for field, columns in named.items() if field not in fields}
    twice += [field for field, columns in fields.items() if any(names.count(name) > 1 for name in columns)]
    if twice:
        return Rejected(
            source, "duplicate-column", f"several columns are mapped to {twice[0]}: {shown(names)}"
        )
    if not fields.keys() & {*TEXTS, PARTS}:
        text = _longest_text(names, sample)
        if text is None:
            known = f"no column is {', '.join(TEXTS)} or text; map one under `columns`"
            return Rejected(source, "unknown-columns", f"{known}: {shown(names)}")
        fields["description"] = [text]
        options.guessed.add(text)
    return fields


def is_known(names: Iterable[str], options: Options) -> bool:
    """Whether one of these names is a column that a reader knows."""
    return any(name in options.columns or name in FIELDS or _key(name) in KNOWN for name in names)


def shown(values: Sequence[Any]) -> str:
    """Values for a message, shortened if there are many."""
    text = ", ".join(map(repr, values))
    return text if len(text) <= 200 else f"{text[:199]}…"


def _by_field(names: Sequence[str]) -> dict[str, list[str]]:
    """Fields to their columns; sections of a description keep the order of ALIASES."""
    ranks: dict[str, list[tuple[int, str]]] = {}
    for name in dict.fromkeys(names):
        if name in FIELDS:
            ranks.setdefault(name, []).append((-1, name))
        elif known := KNOWN.get(_key(name)):
            ranks.setdefault(known[0], []).append((known[1], name))
    return {field: [name for _, name in sorted(ranked)] for field, ranked in ranks.items()}


def _key(name: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())


KNOWN = {
    _key(name): (field, rank)
    for field, names in ALIASES.items()
    for rank, name in enumerate((field, *names) if field != PARTS else names)
}


def _longest_text(names: Sequence[str], sample: Sequence[Mapping[str, Any]]) -> str | None:
    """The column with the longest texts, if they are long enough and most of them are running text."""
    texts = {
        name: [value for row in sample if isinstance(value := row.get(name), str) and value.strip()]
        for name in names
        if not NO_TEXT.search(name)
    }
    lengths = {name: sum(map(len, found)) / len(sample) for name, found in texts.items() if found}
    best = max(lengths, key=lambda name: lengths[name], default=None)
    if best is None or lengths[best] < PROSE_CHARACTERS:
        return None
    return best if 2 * sum(map(is_running_text, texts[best])) >= len(texts[best]) else None


def is_running_text(text: str) -> bool:
    """Whether a text has sentences: most words of a cased script in lower case, and few figures."""
    letters = [character for character in text if character.isalpha()]
    words = re.findall(r"[^\W\d_]+", text)
    cased = [word for word in words if word[0].lower() != word[0].upper()]
    lower = sum(word[0].islower() for word in cased)
    return 2 * len(letters) >= len(text.replace(" ", "")) and (
        3 * lower >= 2 * len(cased) if 2 * len(cased) > len(words) else bool(SENTENCE.search(text))
    )
