"""Model cards: filled from a checkpoint and its metrics.json, brought up to date with new figures."""
