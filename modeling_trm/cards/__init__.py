"""Model cards, filled from metrics.json; what they state measured; images of checkpoints; the table of results."""
