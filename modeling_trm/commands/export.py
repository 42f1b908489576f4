"""Export one supervision step of a checkpoint, for programs without transformers or without PyTorch.

examples:
  trm export --model MODEL --output EXPORT
  trm solve-onnx --export EXPORT puzzles.txt
  trm export --model MODEL --output EXPORT --format torch            step.pt2, for torch.export.load
  trm export --model MODEL --output EXPORT --side 16                 a model with symbol fields: another size
  trm export --model MODEL --output EXPORT --puzzle-tasks evaluation/00576224       arc: these rows

Writes a folder: the step (state in, state and logits out, any batch size, float32), the initial state, the alphabet,
export.json. The step is compared with PyTorch's before the folder appears. Exit code 0 when everything was written, 2
when something given was wrong or the difference was too large; nothing is written then.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..utils.outputs import new_folder
from .options import CommandParser, add_model, add_side


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("export", __doc__)
    add_model(parser)
    add_side(parser)
    parser.add_argument("--output", required=True, metavar="DIR", type=Path, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it is there")
    parser.add_argument("--format", default="onnx", choices=("onnx", "torch"), help="(default: onnx)")
    parser.add_argument(
        "--puzzle-tasks",
        nargs="*",
        metavar="NAME",
        help="rows of the puzzle table that go along, beside the blank one (default: all)",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)

    from ..exporting.folder import write_export
    from ..utils.cli import user_errors
    from ..utils.loading import fit_model, load_model, load_processor

    with (
        user_errors(OSError, ValueError, ImportError),
        new_folder(arguments.output, arguments.overwrite, [arguments.model]) as folder,
    ):
        processor = load_processor(arguments.model, arguments.side)
        model = load_model(arguments.model).float()
        fit_model(model, processor)
        if arguments.puzzle_tasks is not None:
            model.trim_tasks(arguments.puzzle_tasks)
        facts = write_export(model, processor, folder, arguments.format)
        size = sum(file.stat().st_size for file in folder.glob("step.*"))
    found = facts["difference_to_pytorch"]
    print(
        f"{arguments.output / facts['file']}: {size:,} bytes; largest difference to PyTorch {found['one_step']:.1e} "
        f"(allowed {found['tolerance_of_one_step']:.0e}), {found['chained']:.1e} after {found['steps']} steps in a row"
    )
    return 0
