"""Instruction tuning on chats (`recipe`) and on preferences (`dpo`, with `dpo_loss` and `preference_data`);
`merge_adapter`, `chat`, `preview` and `card` are commands of their own. `sft` imports `core` and `data`."""
