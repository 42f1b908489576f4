"""Write files and folders whole or not at all: under a temporary name beside the target, then renamed over it.

What a process that was killed leaves behind is under the target's name and ours, .NAME.trm-part (not yet whole) or
.NAME.trm-old (what was replaced): the next one that writes there finishes or undoes it, so that nothing is lost and
nothing piles up.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .locks import locked, open_alone

PART, OLD = ".trm-part", ".trm-old"


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write the file atomically, its folder created as needed; on an error (a full disk) nothing is left behind.

    A symbolic link is followed: what it points to is replaced. Raises ValueError for what is no regular file.
    """
    path = Path(path)
    target = check_file(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}{PART}")
    with _told(path, len(content)):
        file = open_alone(part)
        try:
            with os.fdopen(file, "wb", closefd=False) as stream:
                stream.write(content)
            os.fsync(file)  # else a power loss after the renaming could leave an empty file
            os.replace(part, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
            raise
        finally:
            os.close(file)
    return path


def write_text(path: str | Path, text: str) -> Path:
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> Path:
    """Indented JSON. Raises ValueError for NaN or infinity, which JSON cannot say."""
    return write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def check_file(path: Path) -> Path:
    """Where a file of this name is written: links are followed.

    Raises:
        ValueError: a folder, a device or a pipe is there, or a file where a folder should be.
    """
    target = path.resolve()
    if target.is_dir():
        raise ValueError(f"{path}: is a folder; allowed: a file, new or to be replaced")
    if target.exists() and not target.is_file():
        raise ValueError(f"{path}: is a device or a pipe, not a file; allowed: a file, new or to be replaced")
    check_parent(path, target)
    return target


def check_parent(path: Path, target: Path) -> None:
    """Raise ValueError where no folder can be made that `target` lies in, PermissionError where it may not be."""
    above = next(folder for folder in target.parents if folder.exists())
    if not above.is_dir():
        raise ValueError(f"{path}: {above} is a file, not a folder")
    if not os.access(above, os.W_OK):
        raise PermissionError(f"{path}: {above} may not be written to")


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """An empty folder to write in, which takes the place of `folder` when the block ends; after an error, nothing does.

    Raises:
        InUseError: another process is doing that.
        OSError: of a full disk, naming the folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part, old = part_of(folder), folder.with_name(f".{folder.name}{OLD}")
    with locked(folder.parent, f".{folder.name}.trm-lock"):
        restore(folder)
        part.mkdir()
        try:
            yield part
            sync_folder(part)
            if folder.exists():
                folder.rename(old)
            part.rename(folder)
            sync(folder.parent)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)


def restore(folder: Path) -> None:
    """Undo or finish what a killed `replaced` began."""
    part, old = part_of(folder), folder.with_name(f".{folder.name}{OLD}")
    if old.exists() and not folder.exists():
        old.rename(folder)
    for left in (part, old):
        shutil.rmtree(left, ignore_errors=True)


def clear_up(folder: Path) -> None:
    """The same for all that lies in the folder; only for who has its lock."""
    for suffix in (OLD, PART):
        for left in list(folder.rglob(f".*{suffix}")):
            restore(left.with_name(left.name.removeprefix(".").removesuffix(suffix)))
            if left.is_file():
                left.unlink()


def sync_folder(folder: Path) -> None:
    """Wait until all files of the folder are on the disk, not in its cache."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def sync(path: Path) -> None:
    if os.name != "posix" and path.is_dir():
        return  # Windows opens no folder
    file = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def part_of(folder: Path) -> Path:
    """Where `replaced` writes first."""
    return folder.with_name(f".{folder.name}{PART}")


@contextmanager
def _told(path: Path, size: int) -> Iterator[None]:
    """An error of the system that names the file and what it needs."""
    try:
        yield
    except OSError as error:
        said = f"{error.strerror} ({size:,} bytes to write; what was there is intact)"
        raise type(error)(error.errno, said, str(path)) from error
