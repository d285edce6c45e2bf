"""Readers of patent files: `ingest` runs them, `formats` recognises a file and picks its reader, `archives`
opens it; `rows` reads tables (`table_records` makes them records), `plain_text` text, `offices` each office's
formats."""
