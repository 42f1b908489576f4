"""Write files and folders whole or not at all: under a temporary name beside the target, then renamed over it.

What a process that was killed leaves behind is under the target's name and ours, .NAME.trm-part (not yet whole) or
.NAME.trm-old (what was replaced): the next one that writes there finishes or undoes it, so that nothing is lost and
nothing piles up.
"""

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .locks import LOCK, InUseError, locked, open_alone

PART, OLD = ".trm-part", ".trm-old"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the user's share of it, or what a file may be


def write_bytes(path: str | Path, content: bytes | memoryview) -> Path:
    """Write the file atomically, its folder created as needed; on an error (a full disk) nothing is left behind.

    A symbolic link is followed: what it points to is replaced. Raises ValueError for what is no regular file.
    """
    path = Path(path)
    target = check_file(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}{PART}")
    with told(path, len(content)):
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
    target = resolved(path)
    if target.is_dir():
        raise ValueError(f"{path}: is a folder; allowed: a file, new or to be replaced")
    if target.exists() and not target.is_file():
        raise ValueError(f"{path}: is a device or a pipe, not a file; allowed: a file, new or to be replaced")
    if target.exists() and _is_printed_to(target):
        raise ValueError(f"{path}: is where this command prints to; give another file")
    check_parent(path, target)
    return target


def _is_printed_to(target: Path) -> bool:
    """As with `--output answers.json > answers.json`."""
    for stream in (1, 2):
        with contextlib.suppress(OSError):  # closed
            if os.path.samestat(os.fstat(stream), target.stat()):
                return True
    return False


def resolved(path: Path) -> Path:
    """Where the path leads, links followed.

    Raises:
        ValueError: nowhere, as links lead in a circle; or no file of ours can have the name, which is written as UTF-8
            and begins with the home folder's sign only where no shell has put that folder in its place.
    """
    if str(path).startswith("~"):
        raise ValueError(f"{path}: ~ stands for a home folder in a shell alone; write the folder out, or ./{path}")
    try:
        is_name = "\0" not in str(path) and bool(str(path).encode())
    except UnicodeEncodeError:
        is_name = False
    if not is_name:
        raise ValueError(f"{str(path)!r}: is no name of a file; allowed: UTF-8 without zero bytes")
    target = Path(os.path.realpath(path))
    if any(one.is_symlink() for one in (target, *target.parents)):
        raise ValueError(f"{path}: the links lead in a circle; give another name, or remove them")
    return target


def check_parent(path: Path, target: Path) -> None:
    """Raise ValueError where no folder can be made that `target` lies in, PermissionError where it may not be."""
    above = next(folder for folder in target.parents if folder.exists())
    if not above.is_dir():
        raise ValueError(f"{path}: {above} is a file, not a folder")
    if not os.access(above, os.W_OK):
        raise PermissionError(f"{path}: {above} may not be written to")


@contextmanager
def replaced(folder: Path, size: int | None = None) -> Iterator[Path]:
    """An empty folder to write in, which takes the place of `folder` when the block ends; after an error, nothing does.

    Args:
        size: bytes that will be written, where they are known, for the message of a full disk.

    Raises:
        InUseError: another process is doing that.
        OSError: of a full disk, naming the folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part, old = part_of(folder), folder.with_name(f".{folder.name}{OLD}")
    with locked(folder.parent, lock_of(folder)):
        restore(folder)
        part.mkdir()
        try:
            with told(folder, size):
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


@contextmanager
def alone_in(folder: Path, name: str = LOCK, wait: bool = False) -> Iterator[None]:
    """Results are written into this folder by this process alone while the block runs; litter of killed ones goes.

    Args:
        wait: for the end of another process that is writing there.

    Raises:
        InUseError: another process is, and it is not to be waited for; it is named.
    """
    with locked(folder, name, wait):
        clear_up(folder)
        yield


def clear_up(folder: Path) -> None:
    """Undo or finish what killed processes began anywhere in the folder; what a living one writes is left alone."""
    for suffix in (OLD, PART):
        for left in list(folder.rglob(f".*{suffix}")):
            target = left.with_name(left.name.removeprefix(".").removesuffix(suffix))
            with contextlib.suppress(InUseError), locked(left.parent, lock_of(target)):
                restore(target)
                if left.is_file():
                    os.close(open_alone(left, wait=False))
                    left.unlink()
    for left in list(folder.rglob(f".?*{LOCK}")):
        with contextlib.suppress(InUseError), locked(left.parent, left.name):
            pass  # it goes with the block


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


def lock_of(folder: Path) -> str:
    """Name of the lock, beside it, of who replaces the folder."""
    return f".{folder.name}{LOCK}"


def part_of(folder: Path) -> Path:
    """Where `replaced` writes first."""
    return folder.with_name(f".{folder.name}{PART}")


@contextmanager
def told(path: Path, size: int | None = None, kept: str = "what was there is intact") -> Iterator[None]:
    """A full disk is told as an OSError that names the file or folder, what it needs and what is intact.

    So is an error of the system that names no file. All others pass.

    Args:
        size: bytes to be written; where they are not known before, what was written until then is told.
        kept: what is intact.
    """
    try:
        yield
    except Exception as error:  # safetensors' own too, which is not imported: every --help would wait for it
        code = _system_code(error)
        if code is None or (code not in FULL and getattr(error, "filename", None) is not None):
            raise
        need = f"{size:,} bytes to write" if size is not None else f"more than {_written(path):,} bytes to write"
        said = f"{os.strerror(code)} ({need}, {_free(path):,} are free; {kept})"
        raise OSError(code, said, str(path)) from error


def _system_code(error: Exception) -> int | None:
    """The system's number of an error in writing; safetensors has it in its words alone. None: another error."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"os error (\d+)", str(error))
    return None if found is None else int(found[1])


def _written(path: Path) -> int:
    """Bytes that lie in the folder, or in the one that `replaced` writes first."""
    place = part_of(path) if part_of(path).exists() else path
    return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())


def _free(path: Path) -> int:
    return shutil.disk_usage(next(one for one in path.absolute().parents if one.exists())).free
