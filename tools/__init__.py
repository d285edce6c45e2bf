"""Commands that drive all rooms: `demo`, `plan`, `doctor`, `lineage`. `tools` may import every room; no room
imports it."""
