"""Metrics in the form of the `evaluate` library, one folder each: the folder is what `evaluate.load` takes."""
