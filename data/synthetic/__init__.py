"""Made-up text for tests and demos: `patents` writes inventions in four languages, `general_text` everyday
stories and chats."""
