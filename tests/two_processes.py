"""A program in two processes that train or vote together, as `torchrun --nproc_per_node 2` starts them.

    python -m tests.two_processes MODULE [ARGUMENT ...]

Forked when the module's main() and what it needs are imported: torchrun imports PyTorch three times. That a command
can be given to torchrun itself is tested in tests/training/test_processes.py.
"""

import importlib
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.forked import run_forked

ROOT = Path(__file__).parents[1]
PROCESSES = 2


def run_in_two(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """On the CPU, a thread each."""
    there = os.environ | {"ACCELERATE_USE_CPU": "true"}
    return run_forked("-m", "tests.two_processes", module, *arguments, cwd=ROOT, env=there)


def main(module: str, *arguments: str) -> int:
    for needed in ("accelerate", "modeling_trm.modeling_trm", module):
        command = importlib.import_module(needed)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"WORLD_SIZE": str(PROCESSES), "LOCAL_WORLD_SIZE": str(PROCESSES)}
    children = []
    for rank in range(PROCESSES):
        child = os.fork()
        if not child:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            sys.argv = [str(command.__file__), *arguments]
            sys.exit(command.main(list(arguments)))
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
