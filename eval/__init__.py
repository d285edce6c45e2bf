"""Tasks, generation, scores with intervals, comparisons. Imports `core` and `data`."""
