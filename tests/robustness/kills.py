"""Kill a process before each of its operations on files, one after the other, and look at what the next one finds.

    python -m tests.robustness.kills SCENARIO FOLDER [EVERY]

prints how many processes were killed; with EVERY, before each EVERY-th operation only. It runs as a program of its own
because it forks, which a test runner with threads must not. A scenario fails by an AssertionError that says at which
operation.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

OPERATIONS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "open", "shutil.rmtree")


def run_killed(action: Callable[[], None], at: int) -> bool:
    """Run the action in a process that dies before its operation number `at`; False: it came to its end before."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        assert code in (0, -signal.SIGKILL), f"operation {at}: exit code {code}"
        return code != 0
    operations = iter(range(at + 1))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event != "open" or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if event in OPERATIONS and writes and next(operations, at) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    real = os.fsync

    def fsync(file: int) -> None:
        hook("os.remove", ())
        real(file)

    code = 1
    try:
        os.fsync = fsync
        sys.addaudithook(hook)
        action()
        code = 0
    finally:
        os._exit(code)


def content(folder: Path) -> dict[str, bytes]:
    """All files below the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


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


def file_scenario(folder: Path, every: int) -> int:
    """A file holds its old content or its new one, and the next writer leaves nothing beside it."""
    from modeling_trm.utils.files import write_bytes

    target, old, new = folder / "figures.json", b"old" * 1000, b"new" * 2000

    def check(at: int) -> None:
        assert target.read_bytes() in (old, new), f"operation {at}: neither the old content nor the new one"
        write_bytes(target, new)
        assert content(folder) == {"figures.json": new}, f"operation {at}: left {os.listdir(folder)}"

    def write() -> None:
        write_bytes(target, new)

    return kill_everywhere(lambda: fill(folder, {"figures.json": old}), write, check, every)


def folder_scenario(folder: Path, every: int) -> int:
    """A folder that is built anew is, after the next build, whole; before, what was there is whole somewhere."""
    from modeling_trm.utils.outputs import new_folder

    target = folder / "set"

    def build(text: bytes) -> None:
        with new_folder(target, overwrite=True) as new:
            (new / "data").mkdir()
            (new / "data" / "a.bin").write_bytes(text)
            (new / "b.bin").write_bytes(text)

    def prepare() -> None:
        fill(folder, {})
        build(b"old")

    def check(at: int) -> None:
        whole = [path for path in (target, folder / ".set.trm-old") if (path / "data" / "a.bin").is_file()]
        assert whole, f"operation {at}: the former folder is lost"
        build(b"new")
        assert (target / "data" / "a.bin").read_bytes() == (target / "b.bin").read_bytes() == b"new"
        assert os.listdir(folder) == ["set"], f"operation {at}: left {os.listdir(folder)}"

    return kill_everywhere(prepare, lambda: build(b"new"), check, every)


def card_scenario(folder: Path, every: int) -> int:
    """The files of a card are all old or all new once the next update begins."""
    from modeling_trm.cards import update

    old = {"metrics.json": b"old", "README.md": b"old", "plots/gone.png": b"old"}
    new = {"metrics.json": b"new", "README.md": b"new", "plots/came.png": b"new"}

    def act() -> None:
        stage = folder / update.WORKPLACE / "new"
        for name, text in new.items():
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            (stage / name).write_bytes(text)
        update._swap(stage, folder, {"plots/gone.png"})
        (folder / update.WORKPLACE / update.PLAN).unlink()
        update.undo(folder)

    def check(at: int) -> None:
        update.undo(folder)
        assert content(folder) in (old, new), f"operation {at}: {content(folder)}"

    return kill_everywhere(lambda: fill(folder, old), act, check, every)


def training_scenario(folder: Path, every: int) -> int:
    """A training that is killed and started again leaves, bit for bit, what one leaves that was left alone."""
    import torch
    import yaml

    from modeling_trm.commands import train
    from modeling_trm.training import final  # noqa: F401 (here once, not in every process)
    from tests.robustness.recipe import TINY_RECIPE

    torch.set_num_threads(1)
    output, whole = folder / "run", folder / "whole"
    recipe = folder / "recipe.yaml"
    folder.mkdir(parents=True)
    recipe.write_text(yaml.safe_dump(TINY_RECIPE), encoding="utf-8")

    def run(where: Path) -> None:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        train.main([str(recipe), "--output_dir", str(where)])

    def outcome(where: Path) -> dict[str, Any]:
        files = content(where)
        log = [json.loads(line) for line in files["log.jsonl"].decode().splitlines()]
        for line in (*log, *(line["eval"] for line in log if "eval" in line)):
            line.pop("seconds", None), line.pop("puzzles_per_second", None)
        weights = {name: text for name, text in files.items() if name.startswith("weights") and "safetensors" in name}
        return {"log": log, "weights": weights, "names": sorted(name for name in files if "trackers" not in name)}

    assert not run_killed(lambda: run(whole), 1_000_000)
    expected = outcome(whole)

    def check(at: int) -> None:
        assert not run_killed(lambda: run(output), 1_000_000), f"operation {at}"
        assert outcome(output) == expected, f"operation {at}: another outcome"

    return kill_everywhere(lambda: shutil.rmtree(output, ignore_errors=True), lambda: run(output), check, every)


def fill(folder: Path, files: dict[str, bytes]) -> None:
    """The folder, with these files and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(text)


SCENARIOS = {
    "file": file_scenario,
    "folder": folder_scenario,
    "card": card_scenario,
    "training": training_scenario,
}

if __name__ == "__main__":
    print(SCENARIOS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]) if sys.argv[3:] else 1))
