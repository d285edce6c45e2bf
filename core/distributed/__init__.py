"""Several processes: `process_group` joins them, `deepspeed_backend` is the one place that drives DeepSpeed,
`watchdog` ends a run that hangs."""
