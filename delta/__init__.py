"""A tuned model as an exact, checked difference to its base model. `delta` imports `core`."""
