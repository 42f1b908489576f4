"""Options that several commands have, each with one name, one meaning and one help: model, puzzles, compute.

The options of the search at test time are in search_options.py. Nothing here imports PyTorch.
"""

import argparse
import math
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..utils.outputs import earlier_results, output_file, output_folder

if TYPE_CHECKING:
    import torch

    from datasets_builders.features import PuzzleSet

    from .. import GridProcessor, TRMForGridReasoning

TASKS = ("sudoku", "maze", "grid", "arc")
SPLITS = ("train", "validation", "test")
MAX_THREADS = 1024
ENGINES = ("auto", "eager", "packed", "bfloat16", "int8", "compiled")  # of engines_trm


class CommandParser(argparse.ArgumentParser):
    """A parser whose description and examples are a module's docstring; what is wrong is told in two lines.

    An option of type int is a whole number, one of type float a finite one, one of no type a text that is not empty:
    everything else is refused for all alike.

    Args:
        command: its name. text: its docstring; the first line is the description, the rest the epilog.
    """

    def __init__(self, command: str = "", text: str | None = None, **options: Any) -> None:
        summary, _, epilog = str(text).partition("\n\n")
        options.setdefault("prog", f"trm {command}")  # a parser of a parser is told its own
        super().__init__(
            description=summary,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )
        self.register("type", None, some_text)
        self.register("type", int, whole_number)
        self.register("type", float, finite_number)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; figures of the same command with other arguments, which will be replaced, are told of."""
        found, rest = super().parse_known_args(args, namespace)
        output = vars(found).get("output")
        if output is not None and Path(output).is_dir():
            typed = shlex.join([*self.prog.split(), *given(args)])
            for name, command in earlier_results(Path(output)).items():
                if command != typed and command.startswith(f"{self.prog} "):
                    print(f"note: {output}: {name} is there and will be replaced; it is of: {command}", file=sys.stderr)
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Exit with code 2; the usage, which is long, is one question away."""
        self.exit(2, f"{self.prog}: `{self.prog} --help` lists the options\n{self.prog}: error: {message}\n")


def some_text(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("'' is not allowed; allowed: a text that is not empty")
    return text


def whole_number(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):  # int() also takes 1_000, digits of other scripts, and any size
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: whole numbers of at most 18 digits")
    return int(text)


def thread_count(text: str) -> int:
    """For argparse: PyTorch's crash of more threads than the system gives has no message."""
    if not 1 <= whole_number(text) <= MAX_THREADS:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; allowed: 1 to {MAX_THREADS}")
    return int(text)


def finite_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (text.isascii() and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: finite numbers")
    return value


def given(argv: Sequence[str] | None) -> list[str]:
    """The arguments as typed; those of the process where a command was not handed its own."""
    return list(sys.argv[1:] if argv is None else argv)


def require_at_least(parser: argparse.ArgumentParser, arguments: argparse.Namespace, least: int, *names: str) -> None:
    """Exit with a line naming the option that is below `least`; what is not given is not looked at."""
    for name in names:
        value = vars(arguments)[name]
        smallest = min(value, default=least) if isinstance(value, list | tuple) else value
        if smallest is not None and smallest < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, got {smallest}")


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="the name of a shipped checkpoint, a folder, or an id on the Hub",
    )
    add_import(parser)


def add_import(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--import",
        dest="imports",
        action=_Import,
        default=(),
        metavar="FILE.py",
        help="read this file first, which registers operators of your own; may be given several times",
    )


class _Import(argparse.Action):
    """Reads the file as soon as the option is met, so that every command knows its operators."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        from ..operator_files_trm import import_operators

        try:
            import_operators(values)
        except (OSError, ValueError) as error:
            parser.error(f"--import: {error}")
        setattr(namespace, self.dest, [*vars(namespace)[self.dest], values])


def add_output(parser: argparse.ArgumentParser, contents: str, check: Callable[[str], str] = output_folder) -> None:
    parser.add_argument("--output", required=True, type=check, metavar="DIR", help=f"folder for {contents}")


def add_output_file(parser: argparse.ArgumentParser, contents: str, metavar: str = "FILE") -> None:
    parser.add_argument("--output", type=output_file, metavar=metavar, help=contents)


def add_data(parser: argparse._ActionsContainer, default: str = "the sample that comes with the package") -> None:
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="a csv or parquet file, a folder of them, the id of a data set on the Hub, or hub for the published "
        f"benchmark (default: {default})",
    )


def add_reading(parser: argparse._ActionsContainer) -> None:
    """How the puzzles of files are written; see `reading`."""
    parser.add_argument(
        "--columns",
        nargs="+",
        type=_named_column,
        metavar="ROLE=NAME",
        help="which column of a table is the question, the answer, ..., as in question=start answer=end",
    )
    parser.add_argument(
        "--characters",
        metavar="TEXT",
        help="what the puzzles are written with, as in .0123456789ABCDEF where 0 is a digit",
    )


def _named_column(text: str) -> tuple[str, str]:
    role, equals, name = text.partition("=")
    if not (role and equals and name):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be ROLE=NAME, as in question=start; what is no column, as a file, goes before --columns"
        )
    return role, name


def reading(arguments: argparse.Namespace) -> dict[str, Any]:
    """What --columns and --characters are to `load_puzzles`. Raises ValueError for a role that is given twice."""
    columns = dict(arguments.columns or ())
    if len(columns) < len(arguments.columns or ()):
        raise ValueError(f"--columns {' '.join(map('='.join, arguments.columns))}: names one role twice")
    return {"columns": columns or None, "characters": arguments.characters}


def refuse_reading(arguments: argparse.Namespace) -> None:
    """Raise ValueError where ARC, whose files say all of it themselves, was told how its puzzles are written."""
    for name in ("columns", "characters"):
        if vars(arguments)[name] is not None:
            raise ValueError(f"--{name} is for tables and grids of text; arc is read from JSON, leave it out")


def add_seed(parser: argparse.ArgumentParser) -> None:
    told = "of everything that is drawn (default: 0)"
    parser.add_argument("--seed", type=valid_seed, default=0, metavar="N", help=told)


def valid_seed(text: str) -> int:
    """For argparse: what every library takes as a seed."""
    if not (re.fullmatch("[0-9]{1,10}", text) and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"seed={text} is not allowed; allowed: whole numbers from 0 to {2**32 - 1}")
    return int(text)


def add_puzzles(parser: argparse.ArgumentParser, max_puzzles: int | None, tasks: Sequence[str] = TASKS) -> None:
    """Which puzzles are read.

    Args:
        max_puzzles: default of how many; None for all. tasks: what the command knows to do.
    """
    group = parser.add_argument_group("puzzles")
    add_data(group)
    group.add_argument("--task", choices=tasks, help="(default: the task that the checkpoint was made for)")
    group.add_argument("--split", default="test", choices=SPLITS, help="(default: test)")
    group.add_argument(
        "--max-puzzles", type=int, default=max_puzzles, metavar="N", help=f"at most N (default: {max_puzzles or 'all'})"
    )
    group.add_argument(
        "--on-bad-row", default="error", choices=("error", "skip"), help="refuse the data, or leave the row out"
    )
    add_reading(group)
    add_seed(parser)


def add_side(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--side",
        type=int,
        metavar="N",
        help="Sudokus or mazes of N x N cells, for a checkpoint that answers several sizes (default: as the puzzles "
        "given, else as trained)",
    )


def add_batch_size(parser: argparse._ActionsContainer, default: int = 64) -> None:
    parser.add_argument(
        "--batch-size", type=int, default=default, metavar="N", help="puzzles at a time (default: %(default)s)"
    )


def add_device(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: auto, the GPU where there is one)")


def add_engine(parser: argparse._ActionsContainer) -> None:
    """With what the supervision steps are computed; names are those of engines_trm."""
    parser.add_argument(
        "--engine", default="auto", choices=ENGINES, help="of the steps (default: auto, the fastest of the precision)"
    )


def add_precision(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--precision", default="float32", choices=("float32", "bfloat16"), help="bfloat16: autocast (default: float32)"
    )


def add_compute(parser: argparse.ArgumentParser, batch_size: int = 64, with_engine: bool = True) -> None:
    """On what and how it is computed."""
    group = parser.add_argument_group("compute")
    add_batch_size(group, batch_size)
    add_precision(group)
    add_device(group)
    if with_engine:
        add_engine(group)


def add_max_steps(parser: argparse._ActionsContainer) -> None:
    told = "as in training; to solve puzzles the checkpoint's own"
    parser.add_argument("--max-steps", type=int, metavar="N", help=f"supervision steps (default: {told})")


def add_views(parser: argparse._ActionsContainer, default: str, *old_names: str) -> None:
    """How many views of a puzzle vote. old_names: what the option was called; they still work."""
    parser.add_argument(
        "--views", type=int, metavar="N", help=f"views of a puzzle that vote, itself included (default: {default})"
    )
    for name in old_names:
        parser.add_argument(name, dest="views", type=int, help=argparse.SUPPRESS)


def check_task(task: str | None, processor: "GridProcessor", model: str) -> None:
    """Raise ValueError where --task is not what the checkpoint was made for."""
    if task not in (None, processor.task):
        raise ValueError(f"checkpoint {model!r} was made for task {processor.task!r}, not for --task {task!r}")


def load_checkpoint(
    arguments: argparse.Namespace, device: "torch.device | None" = None
) -> "tuple[TRMForGridReasoning, GridProcessor]":
    """The checkpoint of --model for puzzles of --task and, where the command has it, --side.

    Args:
        device: of the model; None for that of --device.

    Raises:
        OSError, ValueError: no such checkpoint or device, or one for other puzzles, naming the option.
    """
    from ..utils.loading import choose_device, load_model, load_processor

    device = choose_device(arguments.device) if device is None else device
    processor = load_processor(arguments.model, vars(arguments).get("side"))
    check_task(arguments.task, processor, arguments.model)
    return load_model(arguments.model, device), processor


def load_chosen_puzzles(
    arguments: argparse.Namespace, processor: "GridProcessor", side: int | None = None
) -> "PuzzleSet":
    """The puzzles of the options of `add_puzzles`; a "grid" task has the checkpoint's shape and alphabet.

    A checkpoint that was trained on some of them is told of on stderr.

    Args:
        side: of the grids; None leaves it to the data, and takes the checkpoint's own of the shipped ones.

    Raises:
        ValueError: data that cannot be read, naming file and row.
    """
    from datasets_builders.features import load_puzzles
    from datasets_builders.sources import named_source

    from ..evaluation.puzzles import choose_subset

    source = named_source(arguments.data) | reading(arguments)
    if processor.task == "grid":
        source |= {"grid_shape": tuple(processor.grid_shape), "alphabet": processor.alphabet}
    if side is not None:
        source |= {"grid_shape": (side, side)}
    elif processor.task in ("sudoku", "maze") and arguments.data is None:
        source |= {"grid_shape": tuple(processor.grid_shape)}
    puzzles = load_puzzles(processor.task, arguments.split, on_bad_row=arguments.on_bad_row, **source)
    if arguments.max_puzzles is not None:
        puzzles = choose_subset(puzzles, arguments.max_puzzles, arguments.seed)
    for model in vars(arguments).get("models") or [arguments.model]:
        tell_trained_on(model, puzzles)
    return puzzles


def tell_trained_on(model: str, puzzles: "PuzzleSet") -> None:
    """Tell on stderr of a checkpoint that was trained on some of the puzzles."""
    from ..evaluation.trained_on import trained_on_note

    if (note := trained_on_note(model, puzzles.inputs)) is not None:
        print(f"note: {note}", file=sys.stderr)


def autocast(arguments: argparse.Namespace, device: "torch.device") -> "torch.autocast":
    """What --precision means."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bfloat16")


def provenance(
    command: str, argv: Sequence[str] | None, puzzles: "PuzzleSet", split: str, device: "torch.device"
) -> dict[str, Any]:
    """Where the figures of a report come from: the command, its puzzles, the machine and the libraries."""
    from ..utils.cli import command_line
    from ..utils.machine import describe_machine, library_versions

    return {
        "command": command_line(command, given(argv)),
        "dataset": puzzles.origin,
        "split": split,
        "fingerprint": puzzles.fingerprint,
        "hardware": describe_machine(device),
        "versions": library_versions(),
    }


def hub_data(data: str | None, task: str) -> dict[str, str]:
    """Id and revision of the data set where --data is one of the Hub; call it when it has been loaded."""
    from datasets_builders.sources import PINS

    if data == "hub":
        return {"dataset_id": PINS[task].repo_id, "dataset_revision": PINS[task].revision}
    if data is None or Path(data).exists():
        return {}
    name, _, revision = data.partition("@")
    return {"dataset_id": name} | ({"dataset_revision": revision} if revision else {})


def print_written(paths: Sequence[Path]) -> None:
    print("\n".join(["written:", *(f"  {path}" for path in paths)]))
