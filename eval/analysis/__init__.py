"""From answers to statements: `scoring` and `significance` give scores with intervals, `contamination`
splits off seen samples, `report` and `human_eval` write pages and sheets."""
