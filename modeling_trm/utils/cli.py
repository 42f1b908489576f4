"""Small helpers of the commands."""

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

USER_ERROR = 2  # argparse's own exit code for wrong arguments
INTERRUPTED = 130  # what shells expect after Ctrl-C
BROKEN_PIPE = 141  # and of a program whose reader has gone
OUT_OF_MEMORY = re.compile(r"allocate memory|out of memory|size calculation overflowed", re.I)  # PyTorch's words


@contextmanager
def user_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn these exceptions into "error: ..." on stderr and exit code 2; any other one keeps its traceback.

    Numbers that are too large for the machine are a user's error in every command.
    """
    try:
        yield
    except BrokenPipeError:  # an OSError, but nobody's error
        raise
    except kinds as error:
        # huggingface_hub's validation tells over two lines that something was wrong, and what by its cause.
        is_wrapped = type(error).__name__.startswith("StrictDataclass") and error.__cause__ is not None
        print(f"error: {error.__cause__ if is_wrapped else error}", file=sys.stderr)
        raise SystemExit(USER_ERROR) from error
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        said = " ".join(str(error).split()) or "no more was given"
        print(f"error: there is not enough memory ({said}); give smaller numbers", file=sys.stderr)
        raise SystemExit(USER_ERROR) from error


def command_line(command: str, arguments: Sequence[str]) -> str:
    """What to type for the same run, with quotes where the shell needs them."""
    return shlex.join(["trm", *command.split(), *arguments])
