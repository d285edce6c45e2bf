"""The sections of a description, found by its headings.

    技术领域 ⏎ 本发明涉及… ⏎ 背景技术 ⏎ …  ──▶  ("field", "技术领域 ⏎ 本发明涉及… ⏎"), ("background", …), …

A heading is a line of its own (`BRIEF DESCRIPTION OF THE DRAWINGS`, `一、背景技术`), or the
beginning of a line marked as one (`【技術分野】本発明は…`, `背景技术：…`). Brackets, paragraph
and other numbers, spaces between the characters of an East Asian heading and a colon do not matter. The words
are those that the offices prescribe (37 CFR 1.77, rule 17 of the Chinese and rule 42 of the European
implementing rules, the forms of Japan and Korea) and variants that applicants use.
"""

import re
from typing import Literal, NamedTuple, cast

SectionName = Literal[
    "opening", "related", "support", "notices", "field", "background", "citations", "summary", "drawings",
    "description", "examples", "applicability", "signs", "deposit", "sequences",
]  # fmt: skip
"""`opening` is the text before the first heading, `support` the statement of government support, `notices`
those of copyright, joint research and prior disclosures, `signs` the list of reference signs."""

LONGEST_HEADING = 100
"""Characters; a longer line is prose."""

PARAGRAPH_NUMBER = re.compile(r"\s*[\[【［〔]\s*[0-9０-９]{4,5}\s*[\]】］〕]\s*")
"""What many offices print before a paragraph: `[0001]`, `【０００１】`."""

ORDINAL = re.compile(r"(?:[(（]?(?:\d{1,2}|[IVX]{1,4}|[A-H]|[一二三四五六七八九十]{1,2})\s*[.、．)）]\s*)+")
OPENING = "【［[〔<＜《"
MARKED = re.compile(
    rf"[{re.escape(OPENING)}]([^】］\]〕>＞》\n]{{2,40}})[】］\]〕>＞》]|([^:：\n]{{2,40}})[:：](?=.)"
)
BARE = " \t\u3000:：.。-—–_*【】［］[]〔〕<>＜＞《》()（）"

EAST_ASIAN: dict[SectionName, str] = {
    "related": "相关申请 相关申请的交叉引用 相关申请的交叉参考 对相关申请的交叉引用"
    " 相關申請案之交互參照 相關申請案 交叉引用 関連出願 関連出願の相互参照 관련출원"
    " 관련출원에대한상호참조 관련출원의상호참조 관련출원의교차참조",
    "support": "政府支持 关于政府支持的声明 关于联邦资助研究的声明 政府支持声明 聯邦資助研究 政府の支援"
    " 連邦政府の支援による研究に関する記載 政府支援の記載 정부지원 정부지원에관한진술 연방정부지원연구",
    "notices": "版权声明 著作權聲明 著作権表示 저작권고지",
    "field": "技术领域 所属技术领域 所属领域 发明领域 技術領域 所屬技術領域 發明所屬之技術領域"
    " 新型所屬之技術領域 技術分野 発明の属する技術分野 産業上の利用分野 기술분야"
    " 발명의분야 발명이속하는기술분야 산업상이용분야",
    "background": "背景技术 现有技术 发明背景 背景技術 先前技術 習知技術 發明背景 従来の技術 従来技術"
    " 発明の背景 배경기술 종래기술 종래의기술 발명의배경 발명의배경이되는기술"
    " 발명이속하는기술및그분야의종래기술",
    "citations": "引用文献 先行技術文献 特許文献 非特許文献 現有技術文獻 선행기술문헌 특허문헌 비특허문헌",
    "summary": "发明内容 实用新型内容 发明概述 发明概要 发明的公开 发明公开 发明目的 要解决的技术问题"
    " 发明要解决的技术问题 本发明要解决的技术问题 技术问题 技术方案 有益效果 技术效果 發明內容"
    " 新型內容 發明概述 實用新型內容 発明の概要 発明の開示 発明の目的"
    " 発明が解決しようとする課題 発明が解決しようとする問題点 課題を解決するための手段"
    " 問題点を解決するための手段 発明の効果 발명의내용 발명의개시 발명의요약 발명의목적"
    " 해결하려는과제 해결하고자하는과제 발명이이루고자하는기술적과제 기술적과제"
    " 과제의해결수단 과제해결수단 기술적해결방법 발명의효과 유리한효과",
    "drawings": "附图说明 附图简要说明 附图简单说明 附图的简要说明 图面说明 附圖說明 圖式簡單說明"
    " 圖式之簡單說明 図面の簡単な説明 도면의간단한설명 도면의설명",
    "description": "具体实施方式 具体实施例 具体实施方案 实施方式 发明详述 最佳实施方式 具體實施方式"
    " 實施方式 發明詳細說明 発明を実施するための形態 発明を実施するための最良の形態"
    " 発明の実施の形態 実施の形態 発明の詳細な説明 考案の詳細な説明"
    " 발명을실시하기위한구체적인내용 발명의상세한설명 상세한설명 발명의실시를위한형태"
    " 발명의실시를위한최선의형태 발명의구성및작용 발명의구성",
    "applicability": "工业实用性 工业应用性 产业上的可利用性 工业适用性 產業利用性 産業上の利用可能性"
    " 산업상이용가능성",
    "signs": "附图标记 附图标记说明 符号说明 标号说明 主要元件符号说明 符號說明 主要元件符號說明"
    " 符号の説明 부호의설명 도면부호의설명 도면의주요부분에대한부호의설명",
    "deposit": "保藏生物材料的说明 生物材料保藏 保藏信息 寄存資訊 受託番号 수탁번호",
    "sequences": "序列表 核苷酸和氨基酸序列表 配列表 配列表フリーテキスト 서열목록",
}
"""Headings without their spaces, by section."""

EAST_ASIAN_EXAMPLE = re.compile(
    r"(?:(?:具体|具體)?(?:实施例|實施例|実施例)|(?:对比|對比|比较|比較|参考|制备|製造|試験|实验)例"
    r"|실시예|비교예|제조예)"
    r"[0-9０-９一二三四五六七八九十]{0,3}"
)

_GOVERNMENT = r"(?:(?:U\.? ?S\.? |UNITED STATES )?GOVERNMENT(?:AL)?|FEDERAL(?:LY)?)"
_THING = r"(?:INVENTIONS?|DISCLOSURE|TECHNOLOGY|UTILITY MODEL|APPLICATION)"
_OF = rf"(?: (?:OF|FOR|TO) (?:THE )?(?:PRESENT |CLAIMED )?{_THING})?"
_EN_FIGURES = (
    r"(?:SEVERAL )?(?:VIEWS? OF )?(?:THE )?(?:ACCOMPANYING |ATTACHED )?(?:DRAWING FIGURES|DRAWINGS?|FIGURES?)"
)
_EN_BODIES = rf"(?:{_THING}|EMBODIMENTS?|IMPLEMENTATIONS?)"
_NTH = "(?:FIR|FOUR|FIF|SIX|SEVEN|EIGH|NIN|TEN)(?:ST|TH)|SECOND|THIRD"
_NUMBER = r"[A-Z]?[\dIVX]{1,4}(?:[.-]\d{1,3})?\*?"
_DE_OF = r"(?: DER (?:VORLIEGENDEN )?ERFINDUNG)?"
_FR_OF = r"(?: DE (?:LA PRÉSENTE |L')INVENTION)?"

LATIN: dict[SectionName, str] = {
    "notices": r"(?:COPYRIGHTS?|TRADEMARKS?)(?: AND TRADE ?DRESS)?(?: NOTICES?| NOTICE AND PERMISSION)?"
    r"|NOTICES? OF (?:COPYRIGHTS?|MATERIAL SUBJECT TO COPYRIGHT.*)"
    r"|(?:THE )?(?:NAMES? OF )?(?:THE )?PARTIES TO (?:A )?JOINT RESEARCH.*|JOINT RESEARCH AGREEMENT"
    r"|STATEMENTS? REGARDING PRIOR DISCLOSURES?.*",
    "support": rf"{_GOVERNMENT}(?:[- ]\w+){{0,4}}[- ](?:INTERESTS?|RIGHTS|SUPPORT|FUNDING|RESEARCH|GRANTS?)"
    r"(?: (?:STATEMENT|CLAUSE|AND .*))?"
    rf"|(?:STATEMENT|NOTICE|ACKNOWLEDGE?MENT)S? .*{_GOVERNMENT}\b.*"
    r"|(?:STATEMENT|NOTICE) .*(?:RESEARCH|INTERESTS?|RIGHTS|DEVELOPMENT)",
    "related": r"CROSS[- ]?REFERENCES?(?: TO .*)?"
    r"|(?:REFERENCES? TO )?RELATED (?:U\.?S\.? )?(?:PATENT )?APPLICATIONS?(?: DATA)?"
    r"|(?:REFERENCE TO )?(?:PRIORITY|PRIOR|EARLIER[- ]FILED) APPLICATIONS?"
    r"|(?:CLAIM (?:OF|TO|FOR) )?(?:THE )?(?:BENEFIT OF )?PRIORITY(?: CLAIMS?| INFORMATION| STATEMENT)?"
    r"|INCORPORATION BY REFERENCE|QUERVERWEIS.*|(?:BEZUG ZU )?VERWANDTEN? ANMELDUNGEN"
    r"|(?:R[ÉE]F[ÉE]RENCES?|RENVOI) (?:CROIS[ÉE]ES? )?(?:[ÀA] |AUX? )(?:UNE |DES |LA )?DEMANDES?.*"
    r"|DEMANDES? (?:CONNEXE|APPARENT[ÉE]E)S?",
    "field": rf"(?:TECHNICAL |GENERAL )?FIELDS?(?: AND BACKGROUND)?{_OF}|FIELD OF (?:USE|ART|INVENTION)"
    rf"|(?:TECHNISCHES )?(?:FACH)?GEBIET{_DE_OF}|TECHNISCHER BEREICH|DOMAINE(?: TECHNIQUE)?{_FR_OF}",
    "background": rf"(?:TECHNICAL )?BACKGROUND(?: ART| INFORMATION| AND SUMMARY)?{_OF}|STATE OF THE ART"
    r"|(?:(?:BRIEF )?(?:DESCRIPTION|DISCUSSION|OVERVIEW|BACKGROUND) OF )?(?:THE )?"
    r"(?:RELATED|PRIOR|BACKGROUND|CONVENTIONAL) ART"
    rf"|STAND DER TECHNIK|(?:TECHNISCHER )?HINTERGRUND{_DE_OF}"
    rf"|[ÉE]TAT DE LA TECHNIQUE(?: ANT[ÉE]RIEURE)?|ART ANT[ÉE]RIEUR|ARRI[ÈE]RE-PLAN(?: TECH\w+)?{_FR_OF}",
    "citations": r"(?:(?:PRIOR|RELATED)[- ]ART |PATENT |NON[- ]PATENT )?(?:CITATION LIST|LITERATURE)"
    r"|(?:(?:PRIOR|RELATED|CITED)[- ]ART|PATENT|NON[- ]PATENT|CITED) DOCUMENTS?"
    r"|(?:(?:LIST OF )?(?:CITED )?REFERENCES|BIBLIOGRAPHY)(?: CITED)?"
    r"|(?:(?:NICHT)?PATENT)?LITERATUR(?:VERZEICHNIS)?|BIBLIOGRAPHIE",
    "summary": rf"(?:BRIEF )?SUMMARY{_OF}|BRIEF DESCRIPTION{_OF}|(?:OVERVIEW|MERITS) OF (?:THE )?INVENTION"
    rf"|(?:BRIEF )?(?:DISCLOSURE|STATEMENT|OBJECTS?|AIM){_OF}"
    rf"|(?:ADVANTAGEOUS )?EFFECTS?{_OF}|TECHNICAL (?:PROBLEM|SOLUTION)|SOLUTION TO (?:THE )?PROBLEM"
    r"|PROBLEMS? TO BE SOLVED.*|MEANS (?:FOR|OF) SOLVING.*"
    rf"|ZUSAMMENFASSUNG{_DE_OF}|(?:KURZE )?DARSTELLUNG{_DE_OF}|OFFENBARUNG{_DE_OF}"
    rf"|AUFGABE(?: UND L[ÖO]SUNG)?{_DE_OF}"
    rf"|(?:VORTEILHAFTE )?(?:WIRKUNG(?:EN)?|VORTEILE){_DE_OF}"
    rf"|(?:EXPOS[ÉE]|R[ÉE]SUM[ÉE]|BUT){_FR_OF}",
    "drawings": rf"(?:(?:BRIEF |SHORT )?(?:DESCRIPTION|EXPLANATION) OF (?:THE )?)?{_EN_FIGURES}"
    r"|(?:KURZE )?BESCHREIBUNG DER (?:ZEICHNUNG(?:EN)?|FIGUR(?:EN)?|ABBILDUNGEN)|FIGURENBESCHREIBUNG"
    r"|(?:BR[ÈE]VE )?(?:DESCRIPTION|PR[ÉE]SENTATION)(?: SOMMAIRE| BR[ÈE]VE)? DES (?:DESSINS|FIGURES)"
    r"|L[ÉE]GENDES? DES FIGURES",
    "description": r"(?:DETAILED|FULL|SPECIFIC|GENERAL) (?:DESCRIPTION|DISCLOSURE)(?: OF .*)?"
    rf"|DESCRIPTION(?: OF)?(?: THE)?(?: \w+){{0,3}} {_EN_BODIES}"
    rf"|(?:(?:PREFERRED|EXAMPLE|EXEMPLARY|ILLUSTRATIVE|{_NTH}) )?EMBODIMENTS?(?: \d+)?"
    r"|(?:BEST )?MODES? (?:FOR|OF) CARRYING OUT.*|DESCRIPTION OF EMBODIMENTS"
    rf"|(?:DETAILLIERTE|AUSF[ÜU]HRLICHE|GENAUE|N[ÄA]HERE) BESCHREIBUNG(?: DER .*)?|BESCHREIBUNG{_DE_OF}"
    rf"|(?:WEITERE )?AUSF[ÜU]HRUNG(?:SFORM(?:EN)?(?: UND .*)?|{_DE_OF})|WEGE? ZUR AUSF[ÜU]HRUNG DER ERFINDUNG"
    r"|(?:DESCRIPTION|EXPOS[ÉE]) D[ÉE]TAILL[ÉE]E?(?: D.*)?|MODES? DE R[ÉE]ALISATION.*",
    "examples": r"(?:(?:WORKING|COMPARATIVE|REFERENCE|SYNTHESIS|APPLICATION|PREPARATION|PRODUCTION|SPECIFIC"
    rf"|TEST|INVENTIVE) )?EXAMPLES?(?: {_NUMBER})?(?: ?[A-Z])?(?: ?[-:–] .*)?"
    r"|(?:COMPARATIVE )?EXAMPLES? \d+ ?(?:TO|AND|[-–]) ?\d+.*|EXPERIMENTAL(?: SECTION| PART| EXAMPLES?)?"
    rf"|(?:VERGLEICHS?|AUSF[ÜU]HRUNGS|HERSTELLUNGS|ANWENDUNGS)?BEISPIELE?(?: {_NUMBER})?(?: ?[(:] ?.*)?"
    rf"|EXEMPLES?(?: {_NUMBER})?(?: ?[-:–] .*)?",
    "applicability": r"INDUSTRIAL (?:APPLICABILITY|APPLICATION)(?: (?:OF )?THE INVENTION)?"
    r"|GEWERBLICHE ANWENDBARKEIT|APPLICATIONS? INDUSTRIELLES?",
    "signs": r"(?:(?:BRIEF )?(?:LIST(?:ING)?|TABLE|KEY) (?:OF|TO) )?(?:THE )?(?:REFERENCE|PARTS) "
    r"(?:SIGNS?|NUMERALS?|NUMBERS?|CHARACTERS?|SYMBOLS?|LIST)(?: LIST)?(?: USED IN THE DRAWINGS)?"
    r"|(?:DESCRIPTION|EXPLANATION) OF (?:THE )?(?:REFERENCE )?(?:SIGNS?|NUMERALS?|SYMBOLS?|CODES)"
    r"|(?:LISTE DER )?BEZUGS(?:ZEICHEN|ZIFFERN)(?:LISTEN?)?|ZEICHNUNGSLEGENDE"
    r"|(?:(?:LISTE|L[ÉE]GENDE) DES )?SIGNES DE R[ÉE]F[ÉE]RENCES?"
    r"|(?:LISTE DES )?R[ÉE]F[ÉE]RENCES (?:NUM[ÉE]RIQUES|UTILIS[ÉE]ES)",
    "deposit": r"(?:BIOLOGICAL )?DEPOSIT(?: INFORMATION| OF .*)?",
    "sequences": r"SEQUENCE LISTINGS?|SEQUENZPROTOKOLL|LISTE (?:DE|DES) S[ÉE]QUENCES",
}
"""Patterns of headings in capitals, by section."""

_WORDS = {word: name for name, words in EAST_ASIAN.items() for word in words.split()}
_LAST = frozenset(word[-1] for word in _WORDS) | frozenset(
    "例예0123456789０１２３４５６７８９一二三四五六七八九十"
)
"""The last characters of East Asian headings: most lines are told from them by this one."""
_PATTERN = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in LATIN.items()))


class Section(NamedTuple):
    """A piece of a description."""

    name: SectionName
    text: str
    """Including its heading and the final line break."""


def sections(description: str) -> list[Section]:
    """Split a description at its headings; the concatenated pieces are the description.

    A heading that continues its section (`Example 2` after `Example 1`) does not split it.
    """
    found: list[Section] = []
    name: SectionName
    name, start, position = "opening", 0, 0
    for line in description.splitlines(keepends=True):
        here = heading(line)
        if here is not None and here != name:
            if position > start:
                found.append(Section(name, description[start:position]))
            name, start = here, position
        position += len(line)
    if position > start:
        found.append(Section(name, description[start:]))
    return found


def heading(line: str) -> SectionName | None:
    """The section that a line begins, or None if the line is not a heading."""
    line = line[: LONGEST_HEADING + 1].strip()
    if line[:1] in "[【［〔" and (numbered := PARAGRAPH_NUMBER.match(line)):
        line = line[numbered.end() :]
    if len(line) <= LONGEST_HEADING and (name := _named(line)):
        return name
    # Only in East Asian texts may prose follow a heading on the same line.
    if line.isascii() or not (line[0] in OPENING or ":" in line[:41] or "：" in line[:41]):
        return None
    marked = MARKED.match(line)
    return _east_asian(marked[1] or marked[2]) if marked else None


def _named(line: str) -> SectionName | None:
    bare = line.strip(BARE)
    if not bare or (bare[0] >= "\u3000" and bare[-1] not in _LAST):
        return None
    if ordinal := ORDINAL.match(bare):
        bare = bare[ordinal.end() :]
    if not bare:
        return None
    if bare[0] >= "\u3000":
        return _east_asian(bare)
    if not bare[0].isalpha() or "\t" in bare:
        return None
    found = _PATTERN.fullmatch(" ".join(bare.replace("\u2019", "'").upper().split()))
    return cast(SectionName, found.lastgroup) if found else None


def _east_asian(text: str) -> SectionName | None:
    bare = text.strip(BARE)
    if bare[-1:] not in _LAST:
        return None
    word = "".join(bare.split())
    if ordinal := ORDINAL.match(word):
        word = word[ordinal.end() :]
    return _WORDS.get(word) or ("examples" if EAST_ASIAN_EXAMPLE.fullmatch(word) else None)
