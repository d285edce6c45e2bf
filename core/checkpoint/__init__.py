"""Checkpoints: `save` writes and exports them, `async_writer` writes while training continues, `resume` loads
them, `progress` is their state beyond weights and optimizer."""
