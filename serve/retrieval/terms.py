"""The terms of a text: what is indexed of a passage, and looked for of a question.

    降低能耗，COP 提高 12%   ──▶   降 低 能 耗 降低 低能 能耗 cop 提 高 提高 12

Text is compared after NFKC, case folding and, for Chinese, in Simplified characters. Chinese text gives every
character and every pair of neighbours, Hangul and kana every pair, all other scripts words. No dictionary is
needed, and one rule serves all languages. An index names the rule that it was made with; another is refused.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence

from core.errors import UserError

RULE = "nfkc-casefold-simplified/han-1-2/hangul-kana-2/words"
"""Names what this file does; change it when the terms of any text change."""


def refuse_other_rule(rule: object, made: object) -> None:
    """UserError if what was `made` has the terms of another rule."""
    if rule != RULE:
        raise UserError(f"{made} was made with other terms ({rule}; this version has {RULE}). Make it again.")


LONGEST_WORD = 64
"""Characters; a longer word (a sequence listing, a line of base64) is cut."""

_HAN = "々〆〇\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_PAIRED = "\u1100-\u11ff\uac00-\ud7a3\u3041-\u3096\u30a1-\u30fa\u30fc"  # Hangul (jamo, syllables), kana
_RUN = re.compile(rf"([{_HAN}]+)|([{_PAIRED}]+)|([^\W_{_HAN}{_PAIRED}]+)")
_MARK = re.compile("[\u0300-\u036f\u1160-\u11ff\u3099\u309a\uff9e\uff9f]")
_CLUSTER = re.compile(f"(?s:.){_MARK.pattern}*")
"""A character and the marks that NFKC joins with it."""


def fold(text: str) -> str:
    """The text as its terms are compared."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    if folded.isascii():
        return folded
    return folded.encode("utf-8", "replace").decode().translate(_simplified())  # no half surrogate pairs


_fold_one = functools.lru_cache(1 << 16)(fold)


def terms(text: str) -> list[str]:
    """All terms of a text, repeated as often as they occur."""
    found: list[str] = []
    for han, paired, word in _RUN.findall(fold(text)):
        if word:
            found.append(word[:LONGEST_WORD])
        else:
            run = han or paired
            if han or len(run) == 1:
                found += run
            found += map("".join, itertools.pairwise(run))
    return found


def spans(text: str, wanted: set[str]) -> list[tuple[int, int]]:
    """Where the wanted terms stand in a text: (start, end) in characters, joined where they touch."""
    folded = fold(text)
    starts: Sequence[int] = range(len(text))
    ends: Sequence[int] = range(1, len(text) + 1)
    if _MARK.search(text) or not all(len(_fold_one(character)) == 1 for character in set(text)):
        folded, starts, ends = _placed(text)
    found: list[tuple[int, int]] = []
    for begin, stop in sorted(_wanted(folded, wanted)):
        start, end = starts[begin], ends[stop - 1]
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _placed(text: str) -> tuple[str, list[int], list[int]]:
    """The folded text, and where in `text` that begins and ends from which each of its characters comes."""
    folded, starts, ends = "", list[int](), list[int]()
    for cluster in _CLUSTER.finditer(text):
        piece = fold(cluster[0])
        folded += piece
        starts += [cluster.start()] * len(piece)
        ends += [cluster.end()] * len(piece)
    return folded, starts, ends


def _wanted(folded: str, wanted: set[str]) -> Iterator[tuple[int, int]]:
    for run in _RUN.finditer(folded):
        if run[3]:
            if run[3][:LONGEST_WORD] in wanted:
                yield run.span()
            continue
        pairs = [i for i in range(*run.span()) if i + 1 < run.end() and folded[i : i + 2] in wanted]
        yield from ((i, i + 2) for i in pairs)
        if run.end() - run.start() == 1 and run[0] in wanted:  # single characters are in every text
            yield run.span()


@functools.cache
def _simplified() -> dict[int, str]:
    """Of each Traditional character the Simplified one."""
    from data.language import convert_chinese

    han = [chr(code) for code in (*range(0x3400, 0x4DC0), *range(0x4E00, 0xA000), *range(0x20000, 0x2A6E0))]
    simplified = convert_chinese("\n".join(han), "simplified").split("\n")
    return {ord(old): new for old, new in zip(han, simplified, strict=True) if old != new}
