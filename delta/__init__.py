"""The difference of a tuned model and its base, bit-exact and checked. `delta` imports `core`."""
