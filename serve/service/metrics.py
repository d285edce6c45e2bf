"""Counters and times in the text format of Prometheus (version 0.0.4)."""

from bisect import bisect_left
from collections import Counter, defaultdict

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds."""

HELP = {
    "requests_total": ("counter", "requests by path and status"),
    "answers_total": ("counter", "answers by how they ended"),
    "answer_pieces_total": ("counter", "pieces of text that engines sent"),
    "gate_total": ("counter", "questions by the gate's decision"),
    "citations_total": ("counter", "citations in answers by what was found"),
    "streams": ("gauge", "answers that are being written"),
    "engines_usable": ("gauge", "engines that are not left out"),
    "engine_failures_total": ("counter", "failures of engines"),
    "engine_retries_total": ("counter", "requests that went to another engine"),
    "ratings": ("gauge", "answers by their last rating"),
    "retrieval_seconds": ("histogram", "time of a search"),
    "first_token_seconds": ("histogram", "time from a request to the first piece of its answer"),
}


class Metrics:
    """What was counted since the start."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        self.times: dict[str, list[int]] = {}
        self.sums: dict[str, float] = defaultdict(float)

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Add to a counter."""
        self.counts[name, tuple(sorted(labels.items()))] += by

    def time(self, name: str, seconds: float) -> None:
        """Note a time in a histogram."""
        buckets = self.times.setdefault(name, [0] * (len(BUCKETS) + 1))
        buckets[bisect_left(BUCKETS, seconds)] += 1
        self.sums[name] += seconds

    def text(self, now: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> str:
        """Everything; `now` are the values of gauges, and of counters that others keep."""
        lines = []
        values = {**self.counts, **now}
        for name, (kind, about) in HELP.items():
            lines += [f"# HELP patent_llama_{name} {about}", f"# TYPE patent_llama_{name} {kind}"]
            for (own, labels), value in sorted(values.items()):
                if own == name:
                    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
                    lines.append(f"patent_llama_{name}{f'{{{shown}}}' if shown else ''} {value:g}")
            if kind == "histogram":
                lines += self._histogram(name)
        return "\n".join(lines) + "\n"

    def _histogram(self, name: str) -> list[str]:
        buckets = self.times.get(name, [0] * (len(BUCKETS) + 1))
        lines, total = [], 0
        for limit, found in zip([*map("{:g}".format, BUCKETS), "+Inf"], buckets, strict=True):
            total += found
            lines.append(f'patent_llama_{name}_bucket{{le="{limit}"}} {total}')
        return [*lines, f"patent_llama_{name}_sum {self.sums[name]:g}", f"patent_llama_{name}_count {total}"]


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
