"""Synthetic text for tests and demos: `patents` writes bilingual inventions, `general_text` everyday stories
and chats."""
