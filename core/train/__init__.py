"""Training. `trainer` is one run from check to model card; a training method is a subclass of its `Recipe`.
It runs `loop`; then what feeds it (`sampler`, `dataloader`), what steers it (`optim`, `lr_schedule`,
`spike_guard`, `early_stopping`), what measures it (`validation`, `throughput`, `logger`), and what a run
leaves behind (`run_dir`, `model_card`)."""
