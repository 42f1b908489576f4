"""Experiments on the model family: a question, the arms that answer it, and their figures."""
