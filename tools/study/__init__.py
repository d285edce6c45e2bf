"""Studies: arms of a recipe, each trained with several seeds, and what they show."""
