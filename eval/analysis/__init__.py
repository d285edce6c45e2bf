"""Analysis of answers: `scoring` and `significance` compute scores with intervals and comparisons,
`contamination` finds samples in training data, `report` and `human_eval` write pages and sheets."""
