"""Duplicates and contamination: `dedup` drops exact and near duplicates (`fingerprints`, `minhash`, `lsh`,
`near_duplicates`), `decontaminate` drops what evaluation sets hold (`ngram_index`), `training_index` keeps
what a corpus trained on."""
