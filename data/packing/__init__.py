"""Text to packed tokens: `tokenizer` and `vocab_extension`, `document_text` formats a record, `pack` writes
the `indexed_dataset`, `bin_packing` and `packed_dataset` plan blocks, `dataset_mixture` mixes corpora."""
