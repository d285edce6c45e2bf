"""The option letters of an answer to a multiple-choice question.

    answer without its thought ──▶ numbers to letters ──▶ rejected options removed ──▶ what is stated, or else
    begins, or else stands anywhere

Options may be named by letters (`B`, `Ⓑ`, `Ｂ`) or numbers (`②`, `2번`, `第2项`; KMMLU counts from 1). An
answer that leaves it open (`A or B`), or names several options where one is right, has no letter.
"""

import re
import unicodedata
from collections.abc import Sequence

from eval.metrics.answers import without_thought

LONGEST = 1_000
"""Of a longer answer, this many characters are read at its start and at its end."""
LETTERS = "ABCDEFGH"
_CIRCLED = {ord(start) + i: LETTERS[i] for start in "①❶⑴" for i in range(len(LETTERS))}
_ORDINALS = "一二三四五六七八"
_NUMBERED = re.compile(
    rf"(?<!\d)([1-8])\s*(?:번|号|號|番)|第\s*([1-8{_ORDINALS}])\s*(?:(?:个|個)\s*)?(?:选项|選項|项|項)"
)
_NEXT_QUESTION = re.compile(
    r"\n[^\S\n]*(?:题目|題目|问题|問題|Question|Q|문제)\s*\d*\s*[:.。](?=.)", re.IGNORECASE
)
_HEDGE = re.compile(r"或|还是|還是|\bor\b|또는|혹은|아니면", re.IGNORECASE)
_BETWEEN = r"[\s、;/&+*和及与與或跟]|或者|或是|以及|and\b|or\b|还是|還是|와|과|또는|혹은|아니면|および|と"
_OPTION = r"(?:选项|選項|[项項]|option|choice)"
_IS = r"is|are|be|was|是|为|為|应|應|选|選|은|는|이|가|は|[:=]"
_FILLER = (
    r"(?:\s|(?:is|are|be|it's|would|should|but|rather|the|correct)\b|而是|就是|应该?|應該?|[是为為选選择擇]"
    rf"|{_OPTION}|은|는|이|가|は|[:,=*_\"“'「【】\[\]>({{\\$]|text|mathrm|mathbf){{0,12}}"
)
_STRONG = (
    r"答案|答え|正解|正答|故[选選]|应[选該该]?[选選]|應[选選]|answer|정답|답|boxed|(?:option|choice)\s+is"
)
_WEAK = r"[选選](?:择|擇)?(?![项項])|choose|select|pick"


def answer_letters(
    text: str, letters: Sequence[str], several: bool = False, numbers: bool = True
) -> set[str]:
    """The option letters of an answer (`B`, `不是A，而是C`, `정답은 2번`); empty if there are none.

    `several`: more than one option may be right (`选择BCD`). `numbers`: a bare number (`정답: 2`) is the
    position of an option; it cannot be where options are numbers themselves.
    """
    span = f"{letters[0]}-{letters[-1]}"
    letter = rf"(?<![A-Za-z0-9])[{span}]"
    run, close = _run(span, f",|{_BETWEEN}"), _run(span, _BETWEEN)
    text = without_thought(text).strip()
    text = text if len(text) <= 2 * LONGEST else f"{text[:LONGEST]}\n{text[-LONGEST:]}"
    text = _normal(text, letters, numbers).strip()
    line, _, below = text.partition("\n")
    alone = re.fullmatch(rf"\W*({run})\W*", line)
    if alone and not (several and re.search(rf"(?m)^[^\w\n]*{letter}\b", below)):
        return _chosen(alone[1], letters, several)
    text = _without_rejected(text, run, close)
    stated = (
        rf"(?-i:{run}|(?<![A-Za-z0-9])[{span.lower()}](?![A-Za-z0-9]| [a-z]))"  # not `the answer is a law`
    )
    for cue in (_STRONG, _WEAK):
        link = rf"(?:{_FILLER}|[^.。\n]{{0,40}}?(?:{_IS}){_FILLER})"
        if found := re.findall(rf"(?:{cue}){link}({stated})", text, re.IGNORECASE):
            return _chosen(found[-1], letters, several)
    article = r"(?<![A-Za-z0-9])A(?= [a-z])(?! (?:is|was|and|or|but|because|since|as)\b)"
    text = re.sub(article, "", text)
    begins = None if several else re.match(rf"\W*({run})", text)
    return _chosen(begins[1] if begins else " ".join(re.findall(run, text)), letters, several)


def _run(span: str, between: str) -> str:
    """A pattern of letters with words between them; they may also follow each other directly: `BCD`."""
    return rf"(?<![A-Za-z0-9])[{span}](?:(?:{between}|{_OPTION}){{0,5}}[{span}]){{0,7}}(?![A-Za-z0-9])"


def numbered(prompt: str, letters: Sequence[str]) -> bool:
    """Whether an option of the question that ends a prompt is itself a number, such as `A. 2`."""
    options = re.findall(rf"(?m)^[^\S\n]*[{letters[0]}-{letters[-1]}]\s*[.．、:：)）]\s*(.*)$", prompt)
    return any(re.fullmatch(r"\W*[1-8]\W*", option) for option in options[-len(letters) :])


def _normal(text: str, letters: Sequence[str], numbers: bool) -> str:
    """The answer up to the next question, with half-width characters and letters for numbers of options."""
    text = unicodedata.normalize("NFKC", text.translate(_CIRCLED))
    following = _NEXT_QUESTION.search(text)
    text = text[: following.start()] if following and text[: following.start()].strip() else text

    def named(match: re.Match[str]) -> str:
        number = match[1] or match[2]
        place = _ORDINALS.index(number) if number in _ORDINALS else int(number) - 1
        return f" {letters[place]} " if place < len(letters) else match[0]

    text = _NUMBERED.sub(named, text)
    if not numbers:
        return text
    digit = f"[1-{len(letters)}]"
    listed = (
        rf"(?<!\d)({digit}(?:\s*[,、]\s*{digit}){{0,7}})(?=[\s.。)\]}}*]{{0,9}}(?:$|\n|입니다|이다|です))"
    )

    def lettered(match: re.Match[str]) -> str:
        return match[1] + re.sub(digit, lambda found: letters[int(found[0]) - 1], match[2])

    return re.sub(rf"(^\W*|(?:{_STRONG}){_FILLER}){listed}", lettered, text, flags=re.IGNORECASE)


def _without_rejected(text: str, run: str, close: str) -> str:
    """The text without the options that it rejects: `不是A`, `not A`, `A选项错误`, `A가 아니라`.

    `close` matches letters as `run` does, but no comma between them.
    """
    before = (
        r"(?:(?:(?:并|並)?不|[并並]非)(?:应该?|應該?|[能会會])?[是选選为為]?[择擇]?|排除|除了?|而非"
        r"|(?:\b(?:not|neither|nor|rul(?:es?|ed|ing) out|exclud(?:es?|ed|ing)|except|eliminat(?:es?|ed|ing)"
        r"|rather than)|n't)\s(?:\s*(?:to )?be\b)?)"
        rf"\s*{_OPTION}?\s*[\"“(*]*(?-i:{run})"
    )
    after = (
        rf"(?-i:{close}|(?<![选選案是为為:]){run})"  # `选A，B、C错误` rejects B and C
        rf"[\"”()*]*\s*{_OPTION}?\s*[:,]?\s*(?:[都均也则則是的\s]|说法|表述){{0,6}}"
        r"(?:错|錯|不对|不對|不正确|不正確|不符|不成立|有误|有誤|不是|排除|不选|不選|[은는이가] (?:아니|틀)"
        r"|(?:is|are|was)\s+(?:not\b|incorrect|wrong|false)|isn't)"
    )
    return re.sub(after, " ", re.sub(before, " ", text, flags=re.IGNORECASE), flags=re.IGNORECASE)


def _chosen(run: str, letters: Sequence[str], several: bool) -> set[str]:
    words = re.sub(rf"(?i){_OPTION}|and|or", " ", run)
    found = set(words.upper()) & set(letters)
    return found if len(found) == 1 or (several and not _HEDGE.search(run)) else set()
