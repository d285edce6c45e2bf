"""Duplicates and contamination: `dedup` drops exact and near duplicates (`fingerprints`, `minhash`, `lsh`,
`near_duplicates`), `decontaminate` drops records that overlap evaluation sets (`ngram_index`),
`training_index` records what a corpus trains on."""
