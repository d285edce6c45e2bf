"""What is asked: `task` loads task files and writes prompts, `ceval` and `json_samples` read exams, `sample`
is one answered question."""
