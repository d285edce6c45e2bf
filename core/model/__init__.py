"""The model, any causal one that transformers can load: `loading` loads it, `lora` adds adapters,
`varlen_attention` keeps documents apart, `loss_head` computes the loss without whole logits,
`activation_checkpointing` trades compute for memory, `flops` and `memory_estimate` predict cost."""
