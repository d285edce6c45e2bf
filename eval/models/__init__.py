"""Who answers: `base` says what a model offers, `factory` opens one, `hf` runs it here (`greedy` decoding,
`loglikelihood`), `openai_api` asks an endpoint, `replay` reads answers from a file."""
