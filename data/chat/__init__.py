"""Instruction data: files of any layout to chats, chats to token ids with a mask of the trained ones.

`messages` defines the chat, `row_reader` and `record_formats` read it, `chat_template` renders and tokenises
it, `prepare` makes the folder for training.
"""
