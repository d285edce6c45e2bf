"""C-Eval's hard subjects and its averages (Huang et al. 2023), which are unweighted means over subjects."""

from collections.abc import Sequence

import numpy as np

from eval.metrics.measure import Measure, mean
from eval.sample import EvalSample

HARD = (
    "advanced_mathematics",
    "discrete_mathematics",
    "probability_and_statistics",
    "college_physics",
    "college_chemistry",
    "high_school_mathematics",
    "high_school_physics",
    "high_school_chemistry",
)


def is_hard(s: EvalSample) -> bool:
    """Whether a sample is of C-Eval Hard. Other exams have subjects of the same names."""
    return s.task.startswith("ceval") and s.groups.get("subject") in HARD and "category" in s.groups


def mean_over_subjects(measure: Measure, samples: Sequence[EvalSample]) -> Measure:
    """An accuracy as the mean of the accuracies by subject; resampled within subjects."""
    subjects = [s.groups["subject"] for s in samples]
    names, number, counts = np.unique(subjects, return_inverse=True, return_counts=True)
    weights = len(samples) / (len(names) * counts[number])
    average = mean(
        f"{measure.name}-mean-of-subjects",
        measure.statistics[:, 0] * weights,
        f"{measure.signature}|mean over {len(names)} subjects, unweighted",
    )
    return average._replace(chance=measure.chance, strata=tuple(subjects))
