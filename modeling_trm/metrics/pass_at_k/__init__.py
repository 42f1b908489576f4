"""Voting pass@K: the plain functions are in `ranking`, the `evaluate` metric around them in `pass_at_k`."""
