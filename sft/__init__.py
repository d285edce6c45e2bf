"""Instruction tuning on chats. `sft` imports `core` and `data`."""
