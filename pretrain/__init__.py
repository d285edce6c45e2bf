"""Continued pretraining on packed shards. `pretrain` imports `core` and `data`."""
