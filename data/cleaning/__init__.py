"""Cleaning: `clean` runs over shards, `record_cleaner` applies all rules to one record. A new rule is a
switch in its `CleanConfig` and a line in its `steps`; `text_rules`, `quality`, `repetition` and
`boilerplate` say what the rules do."""
