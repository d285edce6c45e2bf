"""Configuration: `loader` turns YAML and `key=value` into checked models; `schema` holds the sections that
training stages share."""
