"""Where results come from: `manifest` records inputs, outputs and hashes of a folder, `atomic_io` writes
files that are complete or absent."""
