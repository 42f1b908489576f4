"""What the rooms share: files, machine, loading, FLOPs, intervals, figures, command line; imports flat files alone."""
