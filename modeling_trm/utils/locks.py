"""A lock file that tells who has it, and that its owner's death opens, however it dies.

The operating system keeps the lock: a file that a killed process left behind is nobody's, and the next one takes it.
"""

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".trm-lock"
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)  # a mounted web drive


class InUseError(OSError):
    """Another process is writing there; the message names it."""


@contextmanager
def locked(folder: Path, name: str = LOCK, wait: bool = False) -> Iterator[None]:
    """Nobody else writes to this folder, which is made if need be, while the block runs.

    Args:
        wait: for the end of another process that does.

    Raises:
        InUseError: another process does, and it is not to be waited for; it is named.
    """
    folder = Path(os.path.realpath(folder))  # a link may lead to what is not there yet
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    file = _take(folder / name, folder, wait)
    try:
        yield
    finally:
        (folder / name).unlink(missing_ok=True)  # while it is still ours
        os.close(file)
        for one in made:
            if not any(one.iterdir()):
                one.rmdir()


def open_alone(path: Path, wait: bool = True) -> int:
    """A file to write in, emptied; waits while another process has it open in this way.

    Raises:
        InUseError: where it is not to wait.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        if not _lock(file, wait):
            os.close(file)
            raise InUseError(f"{path}: another process is writing it")
        if _is_at(file, path):
            os.ftruncate(file, 0)
            return file
        os.close(file)


def _take(path: Path, folder: Path, wait: bool) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not _lock(file, wait):
            owner = os.read(file, 400).decode("utf-8", "replace").strip() or "another process"
            os.close(file)
            raise InUseError(f"{folder}: {owner} is writing there; wait for its end, or choose another folder")
        if _is_at(file, path):
            try:
                os.ftruncate(file, 0)
                os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            except OSError as error:  # a full disk: the system does not say which
                path.unlink()
                os.close(file)
                raise OSError(error.errno, f"{error.strerror} (a line to say who writes there)", str(path)) from error
            return file
        os.close(file)  # its former owner had removed it: what is locked must be what others will find


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    FAR = 1 << 30  # the byte that is locked: what is locked cannot be read, and the owner's name shall be

    def _lock(file: int, wait: bool) -> bool:
        os.lseek(file, FAR, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError:
            if wait:
                raise
            return False
        finally:
            os.lseek(file, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _lock(file: int, wait: bool) -> bool:
        """False: another process has it. Where the file system knows no locks, everybody gets it."""
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            if error.errno not in UNSUPPORTED:
                raise
        return True
