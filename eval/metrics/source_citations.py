"""Answers to questions with numbered sources: what they cite, and whether they refuse where no source has it.

    … is cooled by air [2][4].      cited 2, 4      relevant 2      precision 1/2, recall 1/1
    The sources do not say it.      refused         relevant none   right

A sample carries `sources` (how many were given) and `relevant_sources` (the numbers of those that have the
answer; none if no source has it).
"""

import re
from collections.abc import Sequence

import numpy as np

from core.errors import UserError
from data.chat.grounded import cited_sources
from eval.metrics.legal import OPENING, REFUSAL
from eval.metrics.measure import Measure, f1, ratio
from eval.sample import EvalSample

NOT_FOUND = re.compile(
    r"\b(?:sources?|documents?|passages?)\b[^.\n]{0,40}\b(?:do(?:es)? not|don't|doesn't|no)\b[^.\n]{0,30}"
    r"\b(?:contain|answer|mention|say|state|provide|include|information)"
    r"|\b(?:answer|information)\b[^.\n]{0,30}\bnot\b[^.\n]{0,30}\b(?:sources?|documents?|passages?)\b"
    r"|\bnone of the (?:\w+ )?(?:sources|documents|passages)\b|\bcannot be answered\b"
    r"|(?:来源|來源|文献|文獻|资料|資料|材料)[^。\n]{0,16}(?:没有|沒有|未|不)[^。\n]{0,12}"
    r"(?:答案|说明|說明|提及|提到|涉及|包含|记载|記載|给出|信息)"
    r"|(?:无法|無法|不能)[^。\n]{0,12}(?:回答|得知|确定|確定)"
    r"|(?:출처|문헌|자료)[^.\n]{0,30}(?:없|않)|답할 수 없"
    r"|(?:出典|文献|資料)[^。\n]{0,30}(?:ません|ない)|(?:答えられ|回答でき)(?:ません|ない)",
    re.IGNORECASE,
)
"""What an answer says that finds nothing in its sources."""


def source_citations(samples: Sequence[EvalSample]) -> list[Measure]:
    """Micro-averaged precision, recall and F1 of the cited sources; share of refusals where no source is
    relevant, and where one is. A number counts once in an answer; one that was not given is wrong.

    Raises UserError for a sample without `sources`, or with a relevant one that was not given.
    """
    cited, refused = np.zeros((len(samples), 3)), np.zeros(len(samples))
    relevant = np.zeros(len(samples))
    for i, s in enumerate(samples):
        expected = set(s.relevant_sources)
        if s.sources is None or not expected <= set(range(1, s.sources + 1)):
            raise UserError(
                f"task {s.task}, sample {s.id}: `sources` is {s.sources} and `relevant_sources` is"
                f" {sorted(expected)}. The metric `source-citations` needs the number of sources, and"
                " which of them, from 1, have the answer."
            )
        numbers = set(cited_sources(s.prediction))
        cited[i] = len(numbers & expected), len(numbers), len(expected)
        refused[i], relevant[i] = refuses(s.prediction), bool(expected)
    name, how = "source-citations", "numbers in brackets|micro over answers"
    by = f"says so in the first {OPENING} characters and cites nothing|by pattern"
    right = np.column_stack([refused * (1 - relevant), 1 - relevant])
    wrong = np.column_stack([refused * relevant, relevant])
    return [
        Measure(f"{name}-precision", cited[:, [0, 1]], ratio, how),
        Measure(f"{name}-recall", cited[:, [0, 2]], ratio, how),
        Measure(f"{name}-f1", cited, f1, how),
        Measure(f"{name}-refusals", right, ratio, f"share of answers without a relevant source|{by}"),
        Measure(f"{name}-false-refusals", wrong, ratio, f"share of answers with one|{by}", False),
    ]


def refuses(answer: str) -> bool:
    """Whether an answer says at its start that there is none, and cites nothing."""
    opening = answer.strip()[:OPENING].replace("’", "'")
    return not cited_sources(answer) and bool(NOT_FOUND.search(opening) or REFUSAL.search(opening))
