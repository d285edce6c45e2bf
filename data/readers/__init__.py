"""Readers of patent files: `ingest` runs them, `formats` recognises a file and picks its reader, `stream` and
`archives` open it, `patent_xml`, `json_csv`, `xlsx_parquet_hub` and `plain_text` read it; `offices` knows
each office's vocabulary."""
