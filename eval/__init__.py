"""Tasks, generation, scores with intervals, comparisons. `eval` imports `core` and `data`."""
