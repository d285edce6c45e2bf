"""Models: `base` defines their interface, `factory` opens one; `hf` runs a local model (with `greedy` and
`loglikelihood`), `openai_api` calls an endpoint, `replay` reads answers from a file."""
