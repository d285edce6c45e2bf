"""Where results come from: `manifest` records a folder's inputs, outputs and hashes; `atomic_io` writes files
and folders that are complete or absent, and resumes folders that were interrupted."""
