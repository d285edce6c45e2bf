"""What several rooms need: `config` (schemas and YAML), `train` (the trainer, its loop, optimizer and log),
`model` (bases, adapters, attention, loss), `checkpoint`, `distributed` (processes, DeepSpeed) and
`provenance` (manifests); `launch` starts the processes.

`core` imports no other room.
"""
