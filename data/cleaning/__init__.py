"""Cleaning: `clean` runs over shards, `record_cleaner` applies the rules in `text_rules`, `quality`,
`repetition` and `boilerplate` to one record."""
