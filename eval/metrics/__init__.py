"""Metrics: `metrics` lists them by name; the other modules compute those of their field."""
