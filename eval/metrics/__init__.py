"""Metrics: `metrics` lists them by name, `measure` is what they return, the others implement them
(`quantities` normalises `5 mm` in texts)."""
