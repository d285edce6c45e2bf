"""Passages of documents: their terms, an index on disk, search by terms and by vectors."""
