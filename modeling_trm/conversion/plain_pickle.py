"""What a plain pickle would import, read off its opcodes with pickletools: nothing in it is run."""

import mmap
import pickletools
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

OPCODES = 1_000_000  # looked at, at most; what a pickle needs stands in front of what it fills in
IMPORTS = ("GLOBAL", "INST")  # their argument is "module name"; STACK_GLOBAL takes both from the stack
FETCH = ("GET", "BINGET", "LONG_BINGET")
STORE = ("PUT", "BINPUT", "LONG_BINPUT")


def imports_of_pickle(path: Path) -> list[str] | None:
    """Names as "module.name", in the order in which the pickle asks for them; None for a file that is no pickle.

    The format has no mark of its own before protocol 2: a pickle is what can be read as opcodes up to its STOP.
    """
    names: list[str] = []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            for name in _imports(content):
                if name not in names:
                    names.append(name)
        except (ValueError, OverflowError, MemoryError):  # what pickletools raises on bytes that are no opcodes
            return None
    return names


def _imports(content: Any) -> Iterator[str]:
    memo: dict[Any, Any] = {}
    pushed: list[Any] = ["?", "?"]  # the last two: names that are computed in another way stay unknown
    for opcode, argument, _ in islice(pickletools.genops(content), OPCODES):
        if opcode.name in IMPORTS:
            yield str(argument).replace(" ", ".")
            argument = "?"
        elif opcode.name == "STACK_GLOBAL":
            yield f"{pushed[-2]}.{pushed[-1]}"
            argument = "?"
        elif opcode.name in STORE:
            memo[argument] = pushed[-1]
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = pushed[-1]
        elif opcode.name in FETCH:
            argument = memo.get(argument, "?")
        if opcode.stack_after and opcode.name != "MEMOIZE":
            pushed = [pushed[-1], argument if isinstance(argument, str) else "?"]
