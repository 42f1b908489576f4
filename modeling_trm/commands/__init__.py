"""What `trm` runs: a file a command, each with `parse_arguments` and `main`.

Nothing here imports PyTorch before the arguments are known to be sound: `--help` and a wrong argument must not wait.
"""
