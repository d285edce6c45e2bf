"""Meta's original LLaMA checkpoints to Hugging Face folders: `convert` drives, `params` and `tokenizer`
translate, `torch_pickle` reads the weights."""
