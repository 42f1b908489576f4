"""What goes to the Hub: the files of a folder that an allow-list names, or made here, and what is left out.

A path is relative to the repository's root, with forward slashes.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..utils.reading import load_json
from ..utils.yaml_reading import load_yaml

FRONT_MATTER = re.compile(r"---\r?\n(.*?)\r?\n---(?:\r?\n|$)", re.DOTALL)
CONFIG = "config.json"  # what makes a folder a checkpoint
BLOCK = 1 << 20
PACKAGE = Path(__file__).resolve().parents[1]  # a shipped checkpoint's code is links to it


class ContentsError(ValueError):
    """A folder that cannot be published; the message is one line and names the file."""


@dataclass(frozen=True)
class Upload:
    """One file: where it goes, and where it is read from (or its bytes, where it was made here)."""

    path: str
    content: Path | bytes

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def git_sha1(self) -> str:
        """The name that git gives to this content."""
        return self._digest(hashlib.sha1(b"blob %d\0" % self.size))

    def sha256(self) -> str:
        """The name that large file storage gives to this content."""
        return self._digest(hashlib.sha256())

    def _digest(self, digest: Any) -> str:
        if isinstance(self.content, bytes):
            digest.update(self.content)
            return digest.hexdigest()
        with self.content.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        return digest.hexdigest()


@dataclass(frozen=True)
class Contents:
    """All that goes into one repository.

    kind: checkpoint, dataset, metric or page, as users call it. repo_type: model, dataset or space, as the Hub does.
    left_out: files of the folder that do not go. notes: what the user should know about the choice.
    """

    kind: str
    repo_type: str
    uploads: tuple[Upload, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...] = ()


def collect(
    folder: Path, kind: str, repo_type: str, files: dict[str, Path | bytes], notes: Iterable[str] = ()
) -> Contents:
    """The contents of these files, in order of their paths; every other file of the folder is listed as left out."""
    uploads = tuple(Upload(path, files[path]) for path in sorted(files))
    return Contents(kind, repo_type, uploads, _left_out(folder, files.keys()), tuple(notes))


def select(folder: Path, patterns: Iterable[str]) -> dict[str, Path | bytes]:
    """{path: file} of the files below the folder that match one of the glob patterns.

    Raises:
        ContentsError: one of them is a link to a file elsewhere, which nobody may have meant to publish.
    """
    files: dict[str, Path | bytes] = {}
    for pattern in patterns:
        for file in folder.glob(pattern):
            if file.is_file():
                if not any(file.resolve().is_relative_to(place) for place in (folder.resolve(), PACKAGE)):
                    raise ContentsError(f"{file}: is a link out of the folder, to {file.resolve()}; put the file here")
                files[file.relative_to(folder).as_posix()] = file
    return files


def read_text(file: Path) -> str:
    """Raises ContentsError naming the file when it is missing or no UTF-8."""
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ContentsError(f"{file}: is missing") from None
    except UnicodeDecodeError as error:
        raise ContentsError(f"{file}: is no UTF-8 text: {error.reason} at byte {error.start}") from error


def parse_file(file: Path) -> Any:
    """What a JSON file says. Raises ContentsError naming what is wrong with it."""
    try:
        return load_json(file)
    except FileNotFoundError:
        raise ContentsError(f"{file}: is missing") from None
    except ValueError as error:
        raise ContentsError(str(error)) from error


def front_matter(file: Path) -> dict[str, Any]:
    """The YAML mapping at the head of a README.md. Raises ContentsError naming what is wrong with it."""
    found = FRONT_MATTER.match(read_text(file))
    if found is None:
        raise ContentsError(f"{file}: has no front matter; a card on the Hub begins with YAML between two lines '---'")
    try:
        values = load_yaml(found[1])
    except ValueError as error:
        raise ContentsError(f"{file}: its front matter is no YAML: {error}") from error
    if not isinstance(values, dict):
        raise ContentsError(f"{file}: its front matter is no mapping of names to values, but {values!r}")
    return values


def _left_out(folder: Path, chosen: Iterable[str]) -> tuple[str, ...]:
    """The other files; a folder of which nothing was chosen is one entry with the number of its files."""
    chosen = set(chosen)
    used = {parent.as_posix() for path in chosen for parent in Path(path).parents}
    counts: dict[str, int] = {}
    for file in sorted(path for path in folder.rglob("*") if not path.is_dir()):
        path = file.relative_to(folder)
        if path.as_posix() not in chosen:
            unused = [parent for parent in path.parents if parent.as_posix() not in used | {"."}]
            name = f"{unused[-1].as_posix()}/" if unused else path.as_posix()
            counts[name] = counts.get(name, 0) + 1
    return tuple(f"{name} ({count} files)" if count > 1 else name for name, count in counts.items())
