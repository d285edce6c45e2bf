"""What is asked: `task` loads task files and builds prompts, `json_samples` reads JSON data files, and
`resources` reads glossaries and laws."""
