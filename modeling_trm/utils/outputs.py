"""Whether something may be written where the user says: checked before any work is done, for every command alike."""

import argparse
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .files import check_file, check_parent, replaced, resolved
from .manifest import foreign_files, write_manifest
from .reading import read_json
from .words import first_few

# What figures of ours are called, and names of which one is in them, as in no other program's.
OURS = {
    "metrics.json": "evaluations", "report.json": "pass_at_k", "sweep.json": "rows", "benchmark.json": "hardware",
    "diagnosis.json": "block_operators", "loops.json": "results",
    "comparison.json": "models recipes top1_agreement", "certificates.json": "certificates",
}  # fmt: skip
PAGE = "index.html"  # of a diagnosis

Sources = Iterable[str | Path | None]  # what is read: paths, ids on the Hub, None for what was not given


def output_folder(text: str) -> str:
    """For argparse: a folder that results are written into, beside what it holds."""
    return _for_argparse(check_results_folder, text)


def output_run(text: str) -> str:
    """For argparse: the folder of a training, new or to be gone on with."""
    return _for_argparse(check_folder, text)


def output_file(text: str) -> str:
    """For argparse: a file to write or replace."""
    return _for_argparse(check_result_file, text)


def check_folder(folder: Path) -> Path:
    """The folder that files can be written into, links followed.

    Raises:
        ValueError: a file is there or on the way, or it is a checkpoint's own folder.
        PermissionError: it may not be written to.
    """
    target = resolved(folder)
    if target.exists() and not target.is_dir():
        raise ValueError(f"{folder}: is a file, not a folder")
    check_parent(folder, target / "any")
    if (target / "config.json").is_file():
        raise ValueError(f"{folder}: is a checkpoint's folder, whose metrics.json would be replaced; give another one")
    return target


def check_results_folder(folder: Path) -> Path:
    """As `check_folder`; nor may it be a training's, whose figures would be replaced, a home, or hold others' figures.

    Raises:
        ValueError: it is one of these, or a file of it is called like one of ours and does not say what ours say.
    """
    target = check_folder(folder)
    if (target / "log.jsonl").is_file():
        raise ValueError(f"{folder}: is the folder of a training, whose metrics.json would be replaced; give another")
    if target in _homes():
        raise ValueError(f"{folder}: is your home, or around it; give a folder of its own")
    for name, fields in OURS.items():
        if os.path.lexists(target / name) and not _says(target / name, fields.split()):
            raise ValueError(f"{target / name}: is of another program, and would be replaced; give another folder")
    if (target / PAGE).exists() and not (target / "diagnosis.json").exists():
        raise ValueError(f"{target / PAGE}: is of another program, and would be replaced; give another folder")
    return target


def earlier_results(folder: Path) -> dict[str, str]:
    """{file: the command that wrote it} of the figures of ours in the folder."""
    found: dict[str, str] = {}
    for name in OURS:
        with suppress(OSError, ValueError, AttributeError, TypeError):  # none, or of another program
            report = read_json(folder / name)
            for part in (report, *report.get("evaluations", {}).values()):
                found |= {name: str(part["command"])} if "command" in part else {}
    return found


def _says(path: Path, fields: Iterable[str]) -> bool:
    try:
        return any(field in read_json(path) for field in fields)
    except (OSError, ValueError):
        return False


def _homes() -> set[Path]:
    try:
        home = Path.home().resolve()
    except RuntimeError:  # a user without a name, as in containers, has none
        return set()
    return {home, *home.parents}


def check_result_file(path: Path) -> Path:
    """As `files.check_file`; nor may it be one of a checkpoint's."""
    target = check_file(path)
    if (target.parent / "config.json").is_file():
        raise ValueError(f"{path}: lies in a checkpoint's folder; give a file elsewhere")
    return target


def refuse_source(output: str | Path, sources: Sources, parts: Iterable[str] = ("",)) -> None:
    """Raise ValueError where what is read would be replaced: it is the output, or one of its `parts`, or lies in it."""
    written = [resolved(Path(output) / part) for part in parts]
    for source in sources:
        if source is None or not os.path.exists(source):  # exists() of Path raises for a text too long for a name
            continue
        path = Path(source).resolve()
        if any(one in (path, *path.parents) for one in written):
            raise ValueError(f"{output}: would replace {source}, which is read; give another output")


@contextmanager
def new_folder(output: Path, overwrite: bool, sources: Sources = ()) -> Iterator[Path]:
    """An empty folder to write in, which takes the place of `output` at the end; after an error nothing is left of it.

    It gets a manifest, by which a later run knows that it made it. Raises as `check_new_folder` and `files.replaced`.
    """
    with replaced(check_new_folder(output, overwrite, sources)) as folder:
        yield folder
        write_manifest(folder)


def check_new_folder(output: Path, overwrite: bool | None, sources: Sources = ()) -> Path:
    """The folder that can be made, links followed.

    Args:
        overwrite: whether one that is there may be replaced; None where the command replaces none.

    Raises:
        ValueError: it is a file, one that the user is in, holds what is read, or holds something: with `overwrite`,
            something that no earlier run of ours wrote.
        PermissionError: it may not be written.
    """
    target = resolved(output)
    if target.exists() and not target.is_dir():
        raise ValueError(f"{output}: is a file, not a folder")
    if target in {Path.cwd(), *Path.cwd().parents} | _homes():
        raise ValueError(f"{output}: is the folder you are in, your home, or around them; give a folder of its own")
    check_parent(output, target)
    refuse_source(output, sources)
    if not target.is_dir() or not any(target.iterdir()):
        return target
    if not overwrite:
        hint = "give one that is new or empty" if overwrite is None else "give --overwrite to replace it"
        raise ValueError(f"{output}: exists and is not empty; {hint}")
    try:
        foreign = foreign_files(target)
    except ValueError as error:
        raise ValueError(
            f"{output}: is not replaced, as nothing tells that it was built like this ({error}); remove it yourself"
        ) from error
    if foreign:
        raise ValueError(
            f"{output}: is not replaced, as it holds files that no run of ours wrote like this: {first_few(foreign)}; "
            f"move them away"
        )
    return target


def _for_argparse(check: Callable[[Path], Path], text: str) -> str:
    try:
        if not text:
            raise ValueError("'' is not allowed; allowed: a name")
        check(Path(text))
    except (ValueError, OSError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text
