"""Several processes: `process_group` joins them, `deepspeed_backend` is the only importer of DeepSpeed,
`release` frees an engine, `universal` converts its checkpoints, `watchdog` ends a run if one of its processes
dies or hangs."""
