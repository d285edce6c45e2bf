"""The gate: a classifier that lets only questions of the domain through, and what is measured of it."""
