"""What several rooms need: configuration, distributed set-up, models, the training loop, checkpoints,
manifests.

`core` imports no other room.
"""
