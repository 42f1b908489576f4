"""What `trm benchmark` measures: a file a part, each a sequence of groups of lines that take turns."""
