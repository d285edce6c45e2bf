"""Instruction data: files of any layout to chats, chats to token ids with a mark on every trained token.

`record` is the chat, `layouts` and `files` read it, `template` renders and tokenises it, `prepare` makes a
finished folder of many.
"""
