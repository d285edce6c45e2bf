"""Continued pretraining on packed shards (`recipe`); `estimate` predicts memory, `smoke_test` tries the GPUs.
`pretrain` imports `core` and `data`."""
