"""Checkpoints: `save` writes and exports them, `async_writer` writes while training continues, `resume`
reads them back."""
