"""Every word of every real publication is in its records, none lost, glued or added, and each claim has the
number that its file gives it.

The files are read a second time without the readers: lxml's own tree of the bytes, or fields and rows. An
element that is not INLINE ends a word. What records leave out or write in another way has a rule here, whose
words are counted in the table that `-s` prints. Then both sides must have the same words, in the same order,
part by part and claim by claim.
"""

import csv
import html
import io
import json
import re
import unicodedata
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from lxml import etree

from data.readers.formats import read
from data.record import Record

PARTS = {
    "title": "invention-title InventionTitle title-of-invention B540",
    "abstract": "abstract Abstract subdoc-abstract SDOAB",
    "claims": "claims Claims subdoc-claims SDOCL ClaimSet",
    "description": "description Description subdoc-description SDODE Specification",
}
"""The elements that hold the text of a publication, in all vocabularies."""
CLAIMS = "{*}claim", "{*}Claim", "{*}CLM"
ITEMS = "{*}exchange-document", "{*}fulltext-document"
IN_LANGUAGES = "patent-document", "exchange-document", "fulltext-document"
"""The publications that have texts in several languages."""
INLINE = frozenset(
    ("b", "i", "u", "U", "sub", "sup", "bold", "italic", "highlight", "subscript", "superscript", "bibl",
     "ref", "figref", "cross-reference", "claim-ref", "dependent-claim-reference", "in-line-formula",
     "ClaimReference", "OCRConfidenceData", "PartName", "PartNumber", "PDAT", "PTEXT", "STEXT", "BTEXT",
     "HIL", "BOLD", "ITALIC", "SB", "SP", "FGREF", "CLREF")
)  # fmt: skip
"""The elements inside a sentence; every other one ends a word."""

# The rules. What a record says in another way, or in another place:
OBJECT = "formula, structure or image"  # is [formula], [chemistry] or [image], whatever it holds
CLAIM_NUMBER = "number before a claim"  # is data, in `claim_numbers`
NUMBER = "number before a paragraph"  # is the layout of an office; ours has none
TABLE = "mark of a table"  # `<tb>`, `<SEP>`, `Head Col 1:` are lines and tabs
SIGN = "name of a sign"  # `.times.` and `[deg.]` are × and °
STATUS = "label or status of a claim"  # of a filed document: `Claim 1 (Original):`
# What no record has, because it is not the text of the publication, or stands there twice:
ABSTRACT_HEADING = "heading over the abstract"
TITLE = "title over the description"
ANNOUNCEMENT = "words that announce the claims"
ABRIDGED = "abstract by an office beside the applicant's"
OTHER_LANGUAGE = "title or abstract in a language without claims and description"
CANCELLED = "cancelled claim"
REMARK = "remark that was converted as a claim"  # of a filed document, without a number
# What a record has and the text has not:
GAZETTE = "heading that a gazette prints (added)"  # is an element's name in XML, 【背景技術】 on paper

ELEMENTS = {
    OBJECT: "maths math MATH-US chemistry CHEM-US img EMI Image",
    CLAIM_NUMBER: "ClaimNumber",
    NUMBER: "number",
    ABSTRACT_HEADING: "subdoc-abstract/heading",
    TITLE: "description/invention-title Description/InventionTitle",
    "deposit of biological material": "bio-deposit",
    "amendment behind a gazette": "written-amendment-group",
    "print around the text": "BoundaryData",  # running heads and line numbers of a scanned page
    STATUS: "ClaimLabelText ClaimTypeCategory ClaimStatusCategory",
}
"""The elements that a rule leaves out; `a/b` is a `b` directly in an `a`."""
RULE = {name: rule for rule, names in ELEMENTS.items() for name in names.split()}

GREEK = {"agr": "α", "Dgr": "Δ", "lgr": "λ", "mgr": "μ", "ohgr": "ω", "phgr": "φ", "PHgr": "Φ", "tgr": "τ"}
"""ISO 8879's names of Greek letters, which HTML does not have."""
LETTERS = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa mu nu xi pi rho sigma tau phi chi psi omega"
)
NAMES = "|".join((*LETTERS.split(), *LETTERS.upper().split(), *LETTERS.title().split(), "micro"))
"""Greek letters in texts of plain characters; Open Patent Services has `[micro]` for µ."""
BRS = {"TTL": "title", "ABPR": "abstract"}
BRS |= dict.fromkeys(("PARN", "CRTX", "GOTX", "BSTX", "DRTX", "DETX"), "description")
"""The fields of text."""
FIELD = r"^([A-Z][A-Z0-9]{1,3})\b *(.*(?:\n(?: .*|$))*)"
CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{CJK}]|[^\W{CJK}]+")
PLACEHOLDER = re.compile(r"\[(?:formula|chemistry|image)\]")
# Formulas in MathML are for their own tests, however they are written: both sides read an image instead.
MATH = re.compile(rb"<math[\s>].*?</math>", re.DOTALL)
PRINTED = re.compile(r"\s*(\d+)\s*[.．、)](?!\d)")


def words(text: str) -> list[str]:
    """The words of a text, `₂` and `_{2}` as 2; a Chinese or Japanese character is a word."""
    return WORD.findall(re.sub(r"[_^{}]", "", unicodedata.normalize("NFKC", text)))


class Publication(NamedTuple):
    """The texts by part and language, and the numbers of the claims by language."""

    texts: dict[tuple[str, str | None], str]
    numbers: dict[str | None, list[int]]

    def add(self, part: str, text: str, language: str | None = None) -> None:
        self.texts[part, language] = f"{self.texts.get((part, language), '')}\n{text}"

    def add_claim(self, number: int | None, text: str, language: str | None = None) -> None:
        numbers = self.numbers.setdefault(language, [])
        numbers.append(number or len(numbers) + 1)
        self.go_on(text, language)

    def go_on(self, text: str, language: str | None = None) -> None:
        """Add to the last claim."""
        self.add(f"claim {self.numbers[language][-1]}", text, language)


class Reader:
    """Reads files a second time and counts the words that each rule takes away."""

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()

    def leave_out(self, rule: str, text: str) -> None:
        self.left_out[rule] += len(words(text))

    def cut(self, rule: str, pattern: str, text: str, by: str = "\n") -> str:
        """The text with `by` for what a pattern finds."""

        def replaced(found: re.Match[str]) -> str:
            self.leave_out(rule, found[0])
            return found.expand(by)

        return re.sub(pattern, replaced, text, flags=re.MULTILINE | re.IGNORECASE)

    def claim(self, found: Publication, declared: int | None, text: str, language: str | None = None) -> None:
        if not words(text):
            return
        text = self.cut(STATUS, r"\A\s*\((?:Original|New|Currently Amended)\)", text)
        if re.fullmatch(r"[\s\d.-]*\(?cancel+ed\b.{0,40}", text, re.IGNORECASE | re.DOTALL):
            self.leave_out(CANCELLED, text)
            return
        printed = PRINTED.match(text)
        if printed:
            self.leave_out(CLAIM_NUMBER, printed[0])
            text = text[printed.end() :]
        found.add_claim(int(printed[1]) if printed else declared, text, language)

    def xml(self, data: bytes) -> Iterator[Publication]:
        root = etree.fromstring(
            data, etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True)
        )
        for item in list(root.iter(*ITEMS)) or [root]:
            yield self.publication(item)

    def publication(self, item: etree._Element) -> Publication:
        found = Publication({}, {})
        several = local(item) in IN_LANGUAGES
        is_abstract = item.findtext("{*}DocumentCode") == "ABST"  # of a filed document
        for part, names in PARTS.items():
            elements = item.iter(*(f"{{*}}{name}" for name in names.split()))
            for element in sorted(elements, key=lambda element: element.get("source") is not None):
                given = element.get("lang") or item.get("lang")
                language = given.lower() if several and given else None
                if rule := next(filter(None, map(rule_of, (element, *element.iterancestors()))), None):
                    self.leave_out(rule, self.flat(element))
                elif element.get("source") and (part, language) in found.texts:
                    self.leave_out(ABRIDGED, self.flat(element))
                elif part == "claims":
                    self.claims(found, element, language)
                elif is_abstract:
                    for heading in list(element.iterchildren("{*}Heading")):
                        self.leave_out(ABSTRACT_HEADING, self.flat(heading))
                        element.remove(heading)
                    found.add("abstract", self.part("abstract", self.flat(element), False))
                else:
                    found.add(part, self.part(part, self.flat(element), several), language)
        self.leave_other_languages(found)
        return found

    def part(self, part: str, text: str, in_characters: bool) -> str:
        if part == "abstract":
            text = self.cut(ABSTRACT_HEADING, r"\A\s*abstract\s*\n", text)
        if part == "description":
            text = self.cut(NUMBER, r"^\s*\[\d{4,}\]", text)
        text = self.cut(SIGN, "&(?:lt|gt|amp);", text)  # escaped twice
        return self.characters(text) if in_characters else text

    def flat(self, element: etree._Element) -> str:
        """The text of an element that no rule leaves out, between line breaks if it is not inline."""
        end = "" if local(element) in INLINE else "\n"
        pieces = [end, element.text or ""]
        for child in element:
            if isinstance(child, etree._Entity):
                name = (child.text or "").strip("&;")
                pieces.append(GREEK.get(name) or html.unescape(f"&{name};"))
            elif isinstance(child.tag, str):
                inner, rule = self.flat(child), rule_of(child)
                if rule:
                    self.leave_out(rule, inner)
                pieces.append("\n" if rule else inner)
            pieces.append(child.tail or "")
        return "".join((*pieces, end))

    def claims(self, found: Publication, element: etree._Element, language: str | None) -> None:
        claims = list(element.iter(*CLAIMS))
        if local(element.getparent()) == "fulltext-document":  # the numbers are in the text of one claim
            text = self.cut(ANNOUNCEMENT, r"\A\s*Claims\s*\n", self.flat(element))
            for claim_text in re.split(r"^(?=\s*\d+\s*\. )", text, flags=re.MULTILINE):
                self.claim(found, None, self.characters(claim_text), language)
            return
        for claim in claims:
            text = self.flat(claim)
            own = claim.get("num") or claim.get("id") or claim.get("ID") or claim.findtext("{*}ClaimNumber")
            if own:
                declared = re.fullmatch(r"(?:CLM-)?0*(\d+)", own.strip())
                text = self.characters(text) if language else text
                self.claim(found, int(declared[1]) if declared else None, text, language)
            elif local(claim) == "Claim":
                self.claim(found, None, self.cut(REMARK, r"\A\s*IN THE CLAIMS .*\s*\Z", text))
            else:
                found.go_on(text, language)  # a claim of the Chinese office, overleaf
            claim.text = None
            del claim[:]
        rest = self.cut(ANNOUNCEMENT, r"^\s*(?:claims\s*)?(?:what is claimed is:?)?\s*$", self.flat(element))
        found.add("text beside the claims", rest, language)

    def leave_other_languages(self, found: Publication) -> None:
        """A record has a body, or else an abstract, or else a title."""
        for parts in (("claim", "description"), ("abstract",)):
            with_body = {language for part, language in found.texts if part.split()[0] in parts}
            if with_body:
                for part, language in list(found.texts):
                    if language not in with_body:
                        self.leave_out(OTHER_LANGUAGE, found.texts.pop((part, language)))
                return

    def characters(self, text: str) -> str:
        """What Open Patent Services and DOCDB write in plain characters."""
        text = self.cut(OBJECT, r"<(?:EMI ID=[\d.]+|IMAGE)>", text)
        text = self.cut(TABLE, r"<tb>\s*(?:Sub)?head col [\d, to]+:|<tb>|<sep>", text)
        text = self.cut(TABLE, r"</?TABLE>(?:\s*Id=)?|:\s*Columns=\d+", text)
        text = re.sub(rf"\[({NAMES})\]", lambda name: greek(name[1]), text)
        text = self.cut(SIGN, r"\[deg\.\]|<\(R\)>", text)
        return re.sub(r"(?<=\S)<([^<>\s]{1,3})>", r"\1", text)

    def json(self, data: bytes) -> Iterator[Publication]:
        """What clients of Open Patent Services save."""
        answer = json.loads(data)
        for document in answer.get("documents", [answer]) if isinstance(answer, dict) else []:
            found = Publication({}, {})
            for part in "title", "abstract", "description":
                found.add(part, self.part(part, document.get(part) or "", True))
            for claim in document.get("claims") or ():
                self.claim(found, claim["number"], "\n".join(claim["limitations"]))
            yield found

    def csv(self, data: bytes) -> Iterator[Publication]:
        for row in csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")):
            found = Publication({}, {})
            found.add("title", row.get("patent_title") or "")
            found.add("description", row.get("text") or "")
            yield found

    def aps(self, data: bytes) -> Iterator[Publication]:
        """Groups of fields; a group is a code alone on its line."""
        found, group = Publication({}, {}), ""
        number = None
        for code, text in self.fields(data.decode()):
            if not text.strip():
                group = code
            elif code == "TTL":
                found.add("title", text)
            elif group == "ABST":
                found.add("abstract", text)
            elif group in ("PARN", "GOVT", "BSUM", "DRWD", "DETD"):
                found.add("description", text)
            elif code == "STM":
                self.leave_out(ANNOUNCEMENT, text)
            elif code == "NUM":
                self.leave_out(CLAIM_NUMBER, text)
                number = int(text.strip(" ."))
            elif group in ("CLMS", "DCLM") and number:
                self.claim(found, number, text)
                number = None
            elif group in ("CLMS", "DCLM"):
                found.go_on(text)
        yield found

    def brs(self, data: bytes) -> Iterator[Publication]:
        for document in data.decode().split("*** BRS DOCUMENT BOUNDARY ***")[1:]:
            found = Publication({}, {})
            for code, text in self.fields(document):
                if code == "CLPR":
                    self.claim(found, None, text)
                elif code == "CLPV":
                    found.go_on(text)
                elif code in BRS:
                    found.add(BRS[code], text)
            yield found

    def fields(self, text: str) -> Iterator[tuple[str, str]]:
        """Codes and texts, which go on in the lines that begin with a space."""
        for code, field in re.findall(FIELD, text, re.MULTILINE):
            content = re.sub(r"\.su[bp]\.", "", self.cut(OBJECT, r"##[A-Z]+\d+##", field))
            content = re.sub(rf"\.({NAMES})\.", lambda name: greek(name[1]), content)
            yield code, self.cut(SIGN, r"\.(?:times|div|sctn|COPYRGT)\.", content)


def local(element: etree._Element | None) -> str:
    return "" if element is None else etree.QName(element).localname


def rule_of(element: etree._Element) -> str | None:
    name = local(element)
    return RULE.get(name) or RULE.get(f"{local(element.getparent())}/{name}")


def greek(name: str) -> str:
    """The letter of a name: `alpha`, `Delta`, `DELTA`."""
    size = "SMALL" if name.islower() else "CAPITAL"
    return unicodedata.lookup(f"GREEK {size} LETTER {name.replace('micro', 'mu')}")


def publications(path: Path, reader: Reader, folder: Path) -> Iterator[tuple[Path, list[Publication]]]:
    """The file, or each file of an archive, as both sides read it, and its publications."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder / path.name)
        for inner in sorted((folder / path.name).rglob("*.xml")):
            yield inner, list(reader.xml(inner.read_bytes()))
        return
    data = path.read_bytes()
    if path.suffix == ".xml" and MATH.search(data):
        data = MATH.sub(b"<img/>", data)
        path = folder / path.name
        path.write_bytes(data)
    readers = {".xml": reader.xml, ".json": reader.json, ".csv": reader.csv, ".greenbook": reader.aps}
    yield path, list(readers.get(path.suffix, reader.brs)(data))


def recorded(records: list[Record], reader: Reader, in_languages: bool) -> Publication:
    """The records of a publication in the same form."""
    found = Publication({}, {})
    for record in records:
        language = record["language"] if in_languages else None
        claims = record["claims"] or []
        for number, claim in zip(record["claim_numbers"] or range(1, len(claims) + 1), claims, strict=True):
            found.add_claim(number, claim, language)
        found.add("title", record["title"] or "", language)
        found.add("abstract", record["abstract"] or "", language)
        description = record["description"] or ""
        if record["office"] == "JP":
            description = reader.cut(GAZETTE, r"^【[^】]*】", description)
        found.add("description", description, language)
    return Publication({key: PLACEHOLDER.sub(" ", text) for key, text in found.texts.items()}, found.numbers)


def differences(expected: list[str], given: list[str]) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """The words that were not read (lost), those that were read and are not in the file (added), and among
    these the ones that are two words of the file (glued)."""
    lost, added = Counter(expected) - Counter(given), Counter(given) - Counter(expected)
    pairs = {first + second for first, second in pairwise(expected)}
    return lost, added, Counter({word: number for word, number in added.items() if word in pairs})


def test_every_word_and_every_number_of_a_claim_is_in_the_records(real: Path, tmp_path: Path) -> None:
    table: defaultdict[str, Counter[str]] = defaultdict(Counter)
    rules: defaultdict[str, Counter[str]] = defaultdict(Counter)
    wrong: list[str] = []
    for path in sorted(path for path in (real / "patents").rglob("*") if path.is_file()):
        reader, place = Reader(), str(path.parent.relative_to(real / "patents"))
        for file, found in publications(path, reader, tmp_path):
            read_ones = [outcome for outcome in read(file) if isinstance(outcome, list)]
            with_words = [publication for publication in found if any(map(words, publication.texts.values()))]
            for publication, records in zip(with_words, read_ones, strict=True):
                languages = {language for _, language in publication.texts}
                ours = recorded(records, reader, in_languages=languages != {None})
                if publication.numbers != ours.numbers:
                    wrong.append(f"{file}: claims {publication.numbers}, read as {ours.numbers}")
                for key in sorted(publication.texts.keys() | ours.texts.keys(), key=str):
                    expected, given = (words(texts.get(key, "")) for texts in (publication.texts, ours.texts))
                    lost, added, glued = differences(expected, given)
                    counts = {"lost": lost.total(), "glued": glued.total(), "added": added.total()}
                    table[place].update(words=len(expected), **counts)
                    if expected != given:
                        wrong.append(f"{file} {key}: lost {dict(lost)}, added {dict(added)}")
                table[place]["documents"] += 1
        rules[place] += reader.left_out
    columns = "documents", "words", "lost", "glued", "added"
    print("\n", *(f"{column:>10}" for column in columns))
    for place, counts in table.items():
        print(" ", *(f"{counts[column]:10,}" for column in columns), place)
        print(*(f"{'':14}{number:10,} {rule}\n" for rule, number in rules[place].items()), sep="", end="")
    assert not wrong, "\n".join(wrong)
    assert sum(counts["documents"] for counts in table.values()) > 9_900
