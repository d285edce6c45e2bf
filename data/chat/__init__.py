"""Instruction data: files of any layout to chats, chats to token ids with a mark on every trained token.

`messages` is the chat, `record_formats` and `row_reader` read it, `chat_template` renders and tokenises it,
`prepare` makes a finished folder of many.
"""
