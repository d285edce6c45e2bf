"""Several processes: `process_group` joins them, `deepspeed_backend` is the only importer of DeepSpeed,
`watchdog` ends a run if one of its processes dies or hangs."""
