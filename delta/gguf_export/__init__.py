"""A model's folder as one GGUF file for llama.cpp and Ollama: configuration, tokenizer, tensors."""
