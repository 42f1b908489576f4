"""`trm COMMAND ...`: tiny recursive models from the command line."""

import difflib
import importlib
import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..utils.cli import BROKEN_PIPE, INTERRUPTED, USER_ERROR
from ..utils.files import FULL

# In the order in which one meets them; the file of a command has its name.
COMMANDS = (
    "solve", "train", "recipes", "evaluate", "vote", "compare", "sweep", "certify", "diagnose", "adapt", "build-data",
    "convert", "export", "solve-onnx", "demo", "publish", "measure-card", "pack-checkpoint", "benchmark",
    "compare-recipes", "loop-experiment", "doctor",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """The command's exit code. A reader that has had enough, as `| head`, ends it silently, a full disk with a line."""
    try:
        try:
            return run(argv)
        finally:
            print(end="", flush=True)  # what is left fails here, and not when Python ends
    except (BrokenPipeError, SystemExit) as stop:
        if not isinstance(stop, BrokenPipeError) and not isinstance(stop.__context__, BrokenPipeError):  # of rich
            raise
        code = BROKEN_PIPE
    except OSError as error:
        if error.errno not in FULL or error.filename is not None:
            raise
        print(f"error: what is printed cannot be written: {error.strerror}", file=sys.stderr)
        code = USER_ERROR
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def run(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return 0
    name, *rest = arguments
    if name == "--version":
        print(f"trm {installed_version()}")
        return 0
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"allowed: {', '.join(COMMANDS)}"
        print(f"error: trm has no command {name!r}; {hint}", file=sys.stderr)
        return 2
    try:
        return command_module(name).main(rest)
    except KeyboardInterrupt:
        print(f"\nstopped: what trm {name} has written is whole, and the same command goes on", file=sys.stderr)
        return INTERRUPTED


def command_module(name: str) -> Any:
    """The file of a command."""
    return importlib.import_module(f".{name.replace('-', '_')}", __package__)


def overview() -> str:
    """What there is, a line a command: how its file's docstring begins."""
    lines = [f"  {name:16} {re.split('[:;.]', command_module(name).__doc__)[0]}" for name in COMMANDS]
    return "\n".join([str(__doc__), "", *lines, "", "`trm COMMAND --help` has examples and every option."])


def installed_version() -> str:
    try:
        return version("modeling-trm")
    except PackageNotFoundError:  # a folder on the path that pip does not know
        from .. import __version__

        return __version__
