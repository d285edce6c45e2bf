"""Traces of scanning and wrong decoding in a text, as shares between 0 and 1."""

import re

from data.characters import has_any, table_of
from data.language import samples

ODD = re.compile("[\ue000-\uf8ff\ufff0-\ufffd]")
"""Private use, specials and the replacement character: what unreadable characters become."""
MISREAD = ("锟斤拷", "ï¿½", "Ã¤", "Ã¶", "Ã¼", "Ã©", "â€", "鈥", "锛")
"""Sequences in UTF-8 text that was decoded as Latin-1 or GBK."""
SUSPECTS = table_of("\ue000\uf8ff", "\ufff0\ufffd", *(sequence[0] * 2 for sequence in MISREAD))
"""A text without any of these characters has neither."""
LEAST_WORDS = 30


def odd_share(text: str) -> float:
    """The share of unreadable or wrongly decoded characters."""
    if text.isascii():
        return 0.0
    misread = sum(text.count(sequence) * len(sequence) for sequence in MISREAD if sequence in text)
    return (len(ODD.findall(text)) + misread) / len(text)


def may_be_odd(text: str) -> bool:
    """Whether `odd_share` may be above 0 for any part of the text, in a fraction of the time."""
    return not text.isascii() and has_any(text, SUSPECTS)


def broken_share(text: str) -> float:
    """The share of one-letter words among words, in samples: `t h e  i n v e n t i o n`, `本 发 明`."""
    words = " ".join(samples(text, 5)).split(" ")
    if len(words) < LEAST_WORDS:
        return 0.0
    letters = [word for word in words if len(word) == 1]
    return sum(map(str.isalpha, letters)) / len(words)
