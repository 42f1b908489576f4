"""Kill a process before each of its operations on files, one after the other, and look at what the next one finds.

    python -m tests.robustness.kills FOLDER SCENARIO[=EVERY[+FIRST]] ...

prints "killed", each scenario's name and how many processes were. An operation that finds the files as the one before
found them is left out: a kill there leaves the same. With EVERY, before each EVERY-th of the others only, from number
FIRST (0). It runs as a program of its own because it forks, which a test runner with threads must not. A scenario
(scenarios.py) fails by an AssertionError that says at which operation.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

TOLD = "tests.robustness"  # the event of `audited`
OPERATIONS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "open", "shutil.rmtree", TOLD)


def run_killed(action: Callable[[], None], at: int) -> bool:
    """Run the action in a process that dies before its operation number `at`; False: it came to its end before."""

    def die(number: int) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)

    code = run_apart(action, die)
    assert code in (0, -signal.SIGKILL), f"operation {at}: exit code {code}"
    return code != 0


def run_to_end(action: Callable[[], None]) -> None:
    code = run_apart(action, lambda number: None)
    assert code == 0, f"exit code {code}"


def run_apart(action: Callable[[], None], before: Callable[[int], None]) -> int:
    """Run the action in a process that calls `before` with the number of each operation to come; its exit code."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    code, told = 1, os.dup(2)
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1), os.dup2(nowhere, 2)
        watch(before)
        action()
        code = 0
    except BaseException:  # noqa: BLE001 (what ended it is told, then the process ends)
        os.write(told, traceback.format_exc().encode())
    finally:
        os._exit(code)


def watch(before: Callable[[int], None]) -> None:
    """From here on `before` is called with the number of each operation of this process to come."""
    numbers = count()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event != "open" or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if event in OPERATIONS and writes:
            before(next(numbers))

    os.fsync = audited(lambda file: None)  # the system's cache outlives a killed process: waiting would change nothing
    sys.addaudithook(hook)


def audited(real: Callable[..., Any]) -> Callable[..., Any]:
    """The function as an operation that a process can be killed before; Python audits it not by itself."""

    def call(*arguments: Any, **options: Any) -> Any:
        sys.audit(TOLD)
        return real(*arguments, **options)

    return call


def kill_everywhere(
    prepare: Callable[[], None],
    action: Callable[[], None],
    check: Callable[[int], None],
    which: slice,
    state: Callable[[], Any],
) -> int:
    """How many processes were killed; each time `check` is called with the number of the operation.

    Args:
        which: of the moments that differ.
        state: all that a killed process leaves behind, as something that can be compared.
    """
    prepare()
    moments = moments_of(action, state)[which]
    for at in moments:
        prepare()
        assert run_killed(action, at), f"operation {at} did not come"
        check(at)
    return len(moments)


def moments_of(action: Callable[[], None], state: Callable[[], Any]) -> list[int]:
    """Numbers of the operations that find another state than the one before found."""
    moments: list[int] = []
    found: list[Any] = [None]

    def look(number: int) -> None:
        now = state()
        if now != found[0]:
            moments.append(number)
        found[0] = now

    return learn(action, look, lambda: moments)


def state(folder: Path) -> dict[Path, bytes | None]:
    """All that is below the folder; None for a folder."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def import_what_is_imported(action: Callable[[], None]) -> None:
    """Run the action in a process of its own and import here what it imported: once, not in every process to come."""
    for name in learn(action, lambda number: None, lambda: sorted(sys.modules.keys() - {"__main__"})):
        with contextlib.suppress(ImportError):  # a name that its package alone can import
            importlib.import_module(name)


def learn(action: Callable[[], None], before: Callable[[int], None], what: Callable[[], list[Any]]) -> list[Any]:
    """Run the action in a process of its own; what it can say after it."""
    with tempfile.TemporaryFile("w+") as notes:

        def act() -> None:
            action()
            json.dump(what(), notes)
            notes.flush()

        code = run_apart(act, before)
        assert code == 0, f"exit code {code}"
        notes.seek(0)
        return json.load(notes)


if __name__ == "__main__":
    from matplotlib.figure import Figure

    from tests.pictures import leave_blank
    from tests.robustness.scenarios import SCENARIOS

    Figure.savefig = leave_blank

    for scenario, _, text in (argument.partition("=") for argument in sys.argv[2:]):
        every, _, first = text.partition("+")
        which = slice(int(first or 0), None, int(every or 1))
        print("killed", scenario, SCENARIOS[scenario](Path(sys.argv[1], scenario), which), flush=True)
