"""Training. Read `loop` first; then what feeds it (`sampler`, `dataloader`), what steers it (`lr_schedule`,
`spike_guard`, `early_stopping`), what measures it (`validation`, `throughput`, `logger`), and `run_dir`."""
