"""The label of a token that is not trained on; without torch, so that `data` can use it."""

IGNORED = -100
"""PyTorch's default `ignore_index` of the cross-entropy."""
