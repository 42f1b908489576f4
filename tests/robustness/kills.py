"""Kill a process before each of its operations on files, one after the other, and look at what the next one finds.

    python -m tests.robustness.kills FOLDER SCENARIO[=EVERY] ...

prints "killed", each scenario's name and how many processes were; with EVERY, before each EVERY-th operation only. It
runs as a program of its own because it forks, which a test runner with threads must not. A scenario (scenarios.py)
fails by an AssertionError that says at which operation.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

TOLD = "tests.robustness"  # the event of `audited`
OPERATIONS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "open", "shutil.rmtree", TOLD)
NEVER = 1_000_000


def run_killed(action: Callable[[], None], at: int) -> bool:
    """Run the action in a process that dies before its operation number `at`; False: it came to its end before."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        assert code in (0, -signal.SIGKILL), f"operation {at}: exit code {code}"
        return code != 0
    code, told = 1, os.dup(2)
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1), os.dup2(nowhere, 2)
        watch(at)
        action()
        code = 0
    except BaseException:  # noqa: BLE001 (what ended it is told, then the process ends)
        os.write(told, traceback.format_exc().encode())
    finally:
        os._exit(code)


def watch(at: int) -> None:
    """From here on this process dies before its operation number `at`."""
    operations = iter(range(at + 1))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event != "open" or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if event in OPERATIONS and writes and next(operations, at) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = audited(os.fsync)
    sys.addaudithook(hook)


def audited(real: Callable[..., Any]) -> Callable[..., Any]:
    """The function as an operation that a process can be killed before; Python audits it not by itself."""

    def call(*arguments: Any, **options: Any) -> Any:
        sys.audit(TOLD)
        return real(*arguments, **options)

    return call


def kill_everywhere(
    prepare: Callable[[], None], action: Callable[[], None], check: Callable[[int], None], every: int
) -> int:
    """How many processes were killed; each time `check` is called with the number of the operation."""
    for killed in count():
        prepare()
        if not run_killed(action, killed * every):
            return killed
        check(killed * every)
    raise AssertionError  # count never ends


if __name__ == "__main__":
    from tests.robustness.scenarios import SCENARIOS

    for scenario, _, text in (argument.partition("=") for argument in sys.argv[2:]):
        print("killed", scenario, SCENARIOS[scenario](Path(sys.argv[1], scenario), int(text or 1)), flush=True)
