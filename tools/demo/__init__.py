"""The whole story in minutes: `steps` lists the commands, `__main__` runs them, `summary` shows what came
out."""
