"""What is asked. A task is a YAML file in `configs/eval`: `task` reads it and builds prompts,
`json_samples` reads JSON data files, and `resources` reads glossaries and laws."""
