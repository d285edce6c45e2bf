"""Preference pairs from patent instructions: the right answer, and that of another invention.

    training samples of a task and language, in a circle ──▶ {instruction, input, chosen, rejected, …}

The wrong answer is the right one of the next sample in the circle. So each answer is chosen once and rejected
once, and none can be preferred without its question.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from data.chat.patent_tasks import TaskSample


def pairs(samples: Sequence[TaskSample], tasks: Collection[str]) -> Iterator[dict[str, str]]:
    """The pairs of these tasks, in the layout that `python -m sft dpo` reads. Of samples with equal answers
    the first is used."""
    circles: dict[tuple[str, str], dict[str, TaskSample]] = defaultdict(dict)
    for sample in samples:
        if sample.task in tasks:
            language = sample.id.partition(" ")[2]
            circles[sample.task, language].setdefault(sample.output, sample)
    for circle in circles.values():
        answers = list(circle)
        for answer, wrong in zip(answers, answers[1:] + answers[:1], strict=True):
            if answer != wrong:
                sample = circle[answer]
                yield {
                    "instruction": sample.instruction,
                    "input": sample.input,
                    "chosen": answer,
                    "rejected": wrong,
                    "task": sample.task,
                    "id": sample.id,
                }
