"""Several models on the same puzzles: figures, report, plots."""
