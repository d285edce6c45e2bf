"""Pairs of texts that are known to be one invention or two: what a rule for near-duplicates is judged by.

    records ──versions──▶ one invention: a text and an edit of it, as offices, scanners and vendors make them
            ──────────▶ two inventions: every two records of different applications and families

The texts are whole patents, titles with abstracts, titles with claims, and forms: designs and plants,
whose texts are the office's formula but for a name. Texts too short for the default cleaning are left out.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from random import Random
from typing import NamedTuple

from data.claims import dependencies
from data.language import base, convert_chinese, is_traditional, main_language
from data.record import Record, invention

MIN_CHARACTERS = 100
"""As data.cleaning's `min_characters`: shorter texts never reach deduplication."""

Lines = list[str]


class Text(NamedTuple):
    """A text of one invention, and edits of it."""

    invention: str
    language: str
    titled: bool
    """Whether the first line of the text and of its edits is a title."""
    text: str
    edits: dict[str, str]
    """The edited text by the name of the edit."""


def real_records(folder: Path) -> list[Record]:
    """The patents of a folder of real files, one of each text; a record without a language has its text's."""
    from data.readers import formats

    found: dict[str, Record] = {}
    for place in ("uspto", "epo", "jp", "kr", "cn/xml", "cn/zh_patent_cpc"):
        for path in sorted((folder / place).rglob("*")):
            outcomes = formats.read(path) if path.is_file() and path.suffix != ".json" else ()
            for record in (each for outcome in outcomes if isinstance(outcome, list) for each in outcome):
                text = "\n".join(view(record, "title", "abstract", "claims", "description"))
                language = record["language"] or main_language(text)
                found.setdefault(text, {**record, "language": language})
    return list(found.values())


def labelled(records: Sequence[Record], seed: int = 0) -> list[Text]:
    """The records' texts, whole and in parts, and forms, each with its edits."""
    rng = Random(seed)
    found = []
    for parts in (("title", "abstract", "claims", "description"), ("title", "abstract"), ("title", "claims")):
        some = [record for record in records if len(parts) > 2 or record[parts[-1]]]
        for number, record in enumerate(some):
            language = base(record["language"] or "")
            others = [other for other in some if base(other["language"] or "") == language]
            other = view(others[number % len(others)], *parts)
            lines = view(record, *parts)
            edited = {name: edit(lines, other, rng) for name, edit in EDITS.items()}
            edited["amended claims"] = view(amended(record), *parts)
            edited["script"] = [converted("\n".join(lines))] if language == "zh" else lines
            found.append(_text(invention(record), language, bool(record["title"]), lines, edited))
    for language, forms in FORMS.items():
        for name, text in forms:
            lines = text.splitlines()
            edited = {key: edit(lines, lines, rng) for key, edit in EDITS.items()}
            found.append(_text(name, language, True, lines, edited))
    unique = {each.text: each for each in reversed(found) if len(each.text) >= MIN_CHARACTERS}
    return list(unique.values())


def view(record: Record, *parts: str) -> Lines:
    """Some parts of a record, line by line."""
    values = [record[part] for part in parts]  # type: ignore[literal-required]
    lists = [value if isinstance(value, list) else [value] for value in values if value]
    return [line for some in lists for text in some for line in text.splitlines() if line.strip()]


def _text(name: str, language: str, titled: bool, lines: Lines, edited: dict[str, Lines]) -> Text:
    text = "\n".join(lines)
    joined = {key: "\n".join(each) for key, each in edited.items()}
    return Text(name, language, titled, text, {key: each for key, each in joined.items() if each != text})


# Edits: (lines, lines of another invention, rng) -> lines.


def scanned(rate: float) -> Callable[[Lines, Lines, Random], Lines]:
    """Characters misread at a rate: another of the text's characters, none, or two."""

    def edit(lines: Lines, _: Lines, rng: Random) -> Lines:
        letters = sorted(set("".join(lines)))

        def read(character: str) -> str:
            if rng.random() >= rate:
                return character
            return rng.choice(("", rng.choice(letters), character + rng.choice(letters)))

        return ["".join(map(read, line)) for line in lines]

    return edit


def cut(lines: Lines, _: Lines, rng: Random) -> Lines:
    """A tenth of the sentences is missing, in one place, but never the first."""
    some = sentences(lines)
    length = max(1, len(some) // 10)
    at = rng.randrange(1, max(2, len(some) - length + 1))
    return some[:at] + some[at + length :]


def added(lines: Lines, other: Lines, rng: Random) -> Lines:
    """Sentences of another text are put in: up to a tenth of the length."""
    some = sentences(lines)
    at, room, more = rng.randrange(1, len(some) + 1), sum(map(len, lines)) // 10, list[str]()
    for sentence in sentences(other)[1:]:
        room -= len(sentence)
        if room < 0:
            break
        more.append(sentence)
    return some[:at] + more + some[at:]


def reworded(lines: Lines, _: Lines, rng: Random) -> Lines:
    """One sentence in ten has its clauses in another order; the title stays."""
    some = sentences(lines)
    for at in rng.sample(range(1, len(some)), min(len(some) - 1, max(1, len(some) // 10))):
        clauses = re.split(r"(?<=[,，、;；])", some[at])
        some[at] = "".join(clauses[1:] + clauses[:1])
    return some


def framed(lines: Lines, _: Lines, __: Random) -> Lines:
    """A vendor's lines after the title and at the end, and no last line."""
    kept = lines[1:-1] if len(lines) > 5 else lines[1:]
    return [lines[0], "Full text, machine-readable (not for legal use)", *kept, "End of document"]


EDITS: dict[str, Callable[[Lines, Lines, Random], Lines]] = {
    "scan, 0.2% misread": scanned(0.002),
    "scan, 0.5% misread": scanned(0.005),
    "scan, 1% misread": scanned(0.01),
    "cut": cut,
    "added": added,
    "reworded": reworded,
    "vendor's frame": framed,
}


def sentences(lines: Lines) -> Lines:
    """The lines, ended after each sentence too."""
    return [part for line in lines for part in re.split(r"(?<=[。；;])|(?<=\.) ", line) if part.strip()]


def amended(record: Record) -> Record:
    """The grant of an application: claim 1 has the features of the first claim that depends on it, which is
    left out, and so is the last claim."""
    claims = record["claims"] or []
    language = record["language"] or ""
    at = next((n for n, each in enumerate(claims) if n and 1 in dependencies(each, language)), None)
    if at is None or len(claims) < 3:
        return record
    rest = [claim for n, claim in enumerate(claims[1:-1], start=1) if n != at]
    return {**record, "claims": [f"{claims[0]} {claims[at]}", *rest]}


def converted(text: str) -> str:
    """Chinese in the other script."""
    return convert_chinese(text, "simplified" if is_traditional(text) else "traditional")


# Forms: texts of different designs and plants, which differ in little but a name.


def _designs(form: str, names: str) -> Iterator[tuple[str, str]]:
    """A design of each name, and its text; designs of one name in two forms are two."""
    for name in names.split(","):
        one = f"an {name.lower()}" if name[0] in "AEIOU" else f"a {name.lower()}"
        text = form.format(name=name, one=one)
        yield f"design {name}, {len(text)} characters", text


VIEWS = "front elevational,rear elevational,left side elevational,right side elevational,top plan,bottom plan"
ENGLISH = "Undergarment,Electrical adapter,Bottle,Chair,Handle for a hand tool,Display screen,Shoe sole"
CHINESE = "水杯,电饭煲,儿童座椅,手机保护壳,带图形用户界面的显示屏,汽车轮毂,台灯"
KOREAN = "의자,포장용 병,휴대전화기 케이스,화상디자인이 표시된 디스플레이 패널,조명기구,운동화"
JAPANESE = "椅子,包装用瓶,携帯電話機用ケース,画像を表示した表示装置,照明器具,運動靴"
GERMAN = "Stuhl,Verpackungsflasche,Gehäuse für ein Mobiltelefon,Leuchte,Sportschuh"
FRENCH = "Chaise,Flacon,Coque de téléphone mobile,Lampe de bureau,Chaussure de sport"
PLANTS = (("Rose", "Petunia", "Begonia"), ("Morning Fire", "Silberlicht", "Kleine Anna"))
PLANT = (
    "{genus} plant named '{name}'\nA new and distinct variety of {genus} plant named '{name}', substantially"
    " as illustrated and described, characterized by its compact habit and long-lasting flowers."
)

FORMS: dict[str, list[tuple[str, str]]] = {
    "en": [
        *_designs(
            "{name}\nThe ornamental design for {one}, as shown and described.\n"
            "FIG. 1 is a perspective view of {one} showing my new design;\n"
            + "\n".join(f"FIG. {n} is a {each} view thereof;" for n, each in enumerate(VIEWS.split(","), 2))
            + "\nThe broken lines in the drawings depict parts that form no part of the claimed design.",
            ENGLISH,
        ),
        *_designs(
            "{name}\nThe ornamental design for {one}, as shown and described.\n"
            "FIG. 1 is a top view of {one}; and FIG. 2 is a side view thereof.",
            ENGLISH,
        ),
        *_designs(
            "{name}\nThe ornamental design for {one}, as shown and described.\n"
            + "\n".join(
                f"FIG. {12 * part + n} is a {each} view of the {word} embodiment of {{one}};"
                for part, word in enumerate(("first", "second"))
                for n, each in enumerate(("perspective", *VIEWS.split(",")), 1)
            )
            + "\nThe broken lines show portions of the article that form no part of the claimed design.",
            ENGLISH,
        ),
        *((f"{a} {b}", PLANT.format(genus=a, name=b)) for a, b in product(*PLANTS)),
    ],
    "zh": list(
        _designs(
            "{name}\n1.本外观设计产品的名称：{name}。\n2.本外观设计产品的用途：本外观设计产品的用途见产品名称。\n"
            "3.本外观设计产品的设计要点：在于产品的形状。\n4.最能表明设计要点的图片或照片：立体图。\n"
            "5.省略视图：后视图与主视图对称，省略后视图；仰视图为使用时不常见面，省略仰视图。",
            CHINESE,
        )
    ),
    "ko": list(
        _designs(
            "{name}\n본 물품의 재질은 합성수지재 및 금속재이다. 도면 1은 전체적인 형태를 나타내는 사시도이고,"
            " 도면 2는 정면도, 도면 3은 배면도, 도면 4는 좌측면도, 도면 5는 우측면도, 도면 6은 평면도,"
            " 도면 7은 저면도이다. {name}의 형상과 모양의 결합을 디자인 창작 내용의 요점으로 한다.",
            KOREAN,
        )
    ),
    "ja": list(
        _designs(
            "{name}\n本物品は、図面に表された形状を有する{name}である。背面図は正面図と対称に表れるため省略する。"
            "実線で表した部分が、部分意匠として意匠登録を受けようとする部分である。左側面図は右側面図と対称に"
            "表れるため省略する。各図の表面部全面に表された細線は、いずれも立体表面の形状を特定するための線である。",
            JAPANESE,
        )
    ),
    "de": list(
        _designs(
            "{name}\nAnsicht 1 zeigt das Erzeugnis ({name}) perspektivisch, Ansicht 2 von vorn, Ansicht 3"
            " von hinten, Ansicht 4 von links, Ansicht 5 von rechts. Geschützt ist, was dargestellt ist.",
            GERMAN,
        )
    ),
    "fr": list(
        _designs(
            "{name}\nLa vue 1 est une vue en perspective du produit ({name}), la vue 2 est une vue de face,"
            " la vue 3 une vue arrière, la vue 4 une vue de côté. Le modèle est protégé tel que représenté.",
            FRENCH,
        )
    ),
}
