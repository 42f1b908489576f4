"""Make a checkpoint that travels from a run's newest one: rounded, without slots, in files under 16 MB with checksums.

examples:
  trm pack-checkpoint runs/sudoku --output packed
  trm train RECIPE --resume_from packed                     there, with the same data
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from .options import CommandParser


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = CommandParser("pack-checkpoint", __doc__)
    parser.add_argument("run", help="folder of the run, its output_dir")
    parser.add_argument("--output", required=True, help="folder to write; an earlier travelling checkpoint is replaced")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from ..training.packing import pack_checkpoint
    from ..utils.cli import user_errors

    with user_errors(ValueError, OSError):
        packed = pack_checkpoint(Path(arguments.run), Path(arguments.output))
    size = f"{packed['files']} files, {packed['bytes'] / 1e6:.1f} MB"
    print(f"{packed['checkpoint']} -> {arguments.output}: step {packed['step']}, {size}")
    print(f"what it leaves out: {Path(arguments.output) / 'README.md'}")
    return 0
