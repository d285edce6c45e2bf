"""Evaluation: `tasks` are asked of `models`, `metrics` score the answers, `analysis` gives intervals,
comparisons and the report; `run_command` is the whole of it. Imports `core` and `data`."""
