"""The whole pipeline in minutes: `steps` lists the commands, `__main__` runs them and shows the scores."""
