"""Studies: what a recipe gained, over trainings."""
