"""What scripts/benchmark.py measures: a file a part, each a sequence of groups of lines that take turns."""
