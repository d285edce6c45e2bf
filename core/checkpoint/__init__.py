"""Checkpoints: `save` writes and exports them, `async_writer` writes while training continues, `resume`
loads them, `progress` is their state beyond weights and optimizer. The bytes of weights and optimizer are
written and read by `core/distributed/deepspeed_backend.py`: `save_state`, `load_state`."""
