"""Whether a passage supports an answer, by rules that need no model.

evidence      the quoted sentence is in the passage, word for word after folding
number        every number of the answer is in the passage or in the question
words         most of the answer's words (in Chinese, Japanese and Korean: pairs of characters) are
"""

import re
import unicodedata

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
WORD = re.compile(r"[^\W\d_]+")
WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")


def unsupported(answer: str, evidence: str, passage: str, question: str, least_share: float) -> str | None:
    """The rule by which the passage does not support the answer, or None."""
    if len(letters(evidence)) < 4 or letters(evidence) not in letters(passage):
        return "evidence-not-in-passage"
    if not numbers(answer) <= numbers(passage) | numbers(question):
        return "number-not-in-passage"
    answer_words = words(answer)
    if not answer_words:
        return "empty-answer"
    if len(answer_words & words(f"{passage}\n{question}")) < least_share * len(answer_words):
        return "words-not-in-passage"
    return None


def letters(text: str) -> str:
    """Only letters and digits, with case and width folded, for comparison."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if character.isalnum())


def numbers(text: str) -> set[str]:
    """The numbers in a text, without thousands separators."""
    return {found.replace(",", "") for found in NUMBER.findall(unicodedata.normalize("NFKC", text))}


def words(text: str) -> set[str]:
    """Words of more than three letters; in East Asian scripts, pairs of characters."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    pairs = {run[i : i + 2] for run in WIDE.findall(folded) for i in range(max(1, len(run) - 1))}
    return pairs | {word for word in WORD.findall(WIDE.sub(" ", folded)) if len(word) > 3}


def alike(one: set[str], other: set[str]) -> float:
    """The Jaccard index of two questions' words."""
    return len(one & other) / max(1, len(one | other))
