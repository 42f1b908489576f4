"""Python in a process of its own, forked where PyTorch is imported: six of the eight seconds until our package is.

The server, one for a worker of pytest, runs this file as a program. It imports what takes longest and reads no
environment: nothing of Hugging Face, nothing of ours, so that a program still begins without the package and with an
environment of its own. Where a test is of how a process starts, it starts one.
"""

import atexit
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

WITHOUT_THE_PACKAGE = """
import sys
sys.modules["modeling_trm"] = None  # an installed package is blocked by name
try:
    import modeling_trm
except ImportError:
    pass
else:
    raise SystemExit("modeling_trm can be imported")
"""  # the beginning of a program


@cache
def server() -> subprocess.Popen[str]:
    alone = os.environ | {"OMP_NUM_THREADS": "1"}  # a process with threads is not forked
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    started = subprocess.Popen([sys.executable, "-I", __file__], env=alone, **pipes)
    atexit.register(started.communicate)  # without more to read it ends
    return started


def run_forked(
    *arguments: str, cwd: str | Path = ".", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run([sys.executable, *arguments], capture_output=True, text=True)`.

    Args:
        arguments: [-I], then -c PROGRAM, -m MODULE or FILE, then the program's own.
    """
    with TemporaryDirectory() as folder:
        shown = [str(Path(folder, name)) for name in ("stdout", "stderr")]
        asked = (arguments, str(Path(cwd).absolute()), dict(os.environ if env is None else env), shown)
        print(json.dumps(asked), file=server().stdin)
        code = int(server().stdout.readline())
        texts = (Path(path).read_text(encoding="utf-8") for path in shown)
        return subprocess.CompletedProcess(arguments, code, *texts)


def serve() -> None:
    import torch._dynamo
    import torch.distributed.tensor  # noqa: F401

    for line in sys.stdin:
        process = os.fork()
        if not process:
            begin(*json.loads(line))
            sys.exit()
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def begin(arguments: list[str], folder: str, environment: dict[str, str], shown: list[str]) -> None:
    """Be the process that was asked for."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(shown, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment, OMP_NUM_THREADS="1")
    os.chdir(folder)
    if arguments[0] == "-I":
        arguments = arguments[1:]
    else:
        sys.path[:0] = ["", *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    how, *rest = arguments
    if how == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(rest[0], {"__name__": "__main__"})
    elif how == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(how, run_name="__main__")


if __name__ == "__main__":
    serve()
