"""Where puzzles come from. Every source says which splits it has, reads one as `Rows`, and has a key that changes
whenever its rows may: the shipped sample, a folder, named files, the pinned Hub source, any `datasets` data set.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets_builders.files import SPLITS, Paths, file_sha256, files_by_split, named_files, refuse_saved_to_disk
from datasets_builders.validation import DataError
from modeling_trm.grid_text_trm import option
from modeling_trm.puzzle_columns_trm import choose_columns, describe_columns, normalise
from modeling_trm.puzzle_tables_trm import read_table

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

Columns = Mapping[str, str]

SAMPLES = Path(__file__).parent / "samples"
OWN_SHAPE = {"sudoku": (9, 9), "maze": (30, 30)}  # of the sample that is called after the task alone


@dataclass(frozen=True)
class Rows:
    """Rows as read: an Arrow table of source, question, answer (strings), rating (numbers) and row (its number in its
    file, from 1), and their files.
    """

    table: "pa.Table"
    files: tuple[tuple[str, int], ...]  # (file, how many rows of it there are), in order
    origin: str  # one line for people and cards
    notes: tuple[str, ...] = ()  # lines saying which columns were taken for what, where their names do not say it

    def place(self, number: int) -> tuple[str, int]:
        """(file, number in it) of a row."""
        end = 0
        for file, count in self.files:
            end += count
            if number < end:
                return file, self.table["row"][number].as_py()
        raise IndexError(number)


class Source(ABC):
    """A source of puzzles of one task."""

    license_id: str | None = None  # as the Hub names it; None where the rows are somebody else's
    has_one_solution_each = False  # whether that is known of its Sudokus

    def __init__(self, task: str):
        self.task = task

    @abstractmethod
    def provenance(self) -> str:
        """A paragraph for the card: what the rows are and where they come from."""

    @abstractmethod
    def splits(self) -> list[str]:
        """Which of train, validation and test there are."""

    @abstractmethod
    def read(self, split: str, columns: Columns | None = None, characters: str | None = None) -> Rows:
        """The rows of a split. Raises DataError naming the file or data set.

        Args:
            columns: {"question": name of its column, ...} where the names do not say it.
            characters: what mazes and grids are written with, if not with the processor's characters.
        """

    @abstractmethod
    def key(self) -> str:
        """A string that differs whenever the rows may differ."""


class FileSource(Source):
    """A source whose splits are files."""

    @abstractmethod
    def files(self, split: str) -> list[Path]:
        """The files of a split."""

    def origin(self, split: str) -> str:
        """One line saying where the rows come from; it names no folder of the user's machine."""
        return "files " + ", ".join(file.name for file in self.files(split))

    def provenance(self) -> str:
        files = [file for split in self.splits() for file in self.files(split)]
        return "Local files:\n\n" + "\n".join(f"- {file.name}, SHA-256 `{file_sha256(file)}`" for file in files)

    def read(self, split: str, columns: Columns | None = None, characters: str | None = None) -> Rows:
        import pyarrow as pa

        files = self.files(split)
        tables, notes = zip(*(read_table(self.task, file, columns, characters) for file in files), strict=True)
        counts = tuple((str(file), table.num_rows) for file, table in zip(files, tables, strict=True))
        together = pa.concat_tables(tables, promote_options="permissive")  # ratings of one file may be whole
        return Rows(together, counts, self.origin(split), tuple(filter(None, notes)))

    def key(self) -> str:
        files = [(split, file) for split in self.splits() for file in self.files(split)]
        return " ".join(f"{split}:{file.name}:{file_sha256(file)}" for split, file in files)


class SampleSource(FileSource):
    """The sample inside the package. A file that is not the one that was shipped is refused."""

    license_id = "apache-2.0"
    has_one_solution_each = True

    def __init__(self, task: str, grid_shape: tuple[int, int] | None = None) -> None:
        super().__init__(task)
        self.name = task
        if grid_shape not in (None, OWN_SHAPE.get(task)):
            self.name += "-{}x{}".format(*grid_shape)
        lines = (SAMPLES / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
        self.sums = {name: sha256 for sha256, name in (line.split() for line in lines)}
        if not self.splits():
            raise DataError(f"no sample of task {self.name!r} is shipped; give data_dir, data_files or dataset")

    def splits(self) -> list[str]:
        return [split for split in SPLITS if f"{self.name}/{split}.parquet" in self.sums]

    def files(self, split: str) -> list[Path]:
        name = f"{self.name}/{split}.parquet"
        if name not in self.sums:
            raise DataError(f"the shipped sample of {self.name!r} has no split {split!r}; it has: {self.splits()}")
        file = SAMPLES / name
        if not file.is_file() or file_sha256(file) != self.sums[name]:
            raise DataError(f"{file}: the shipped sample is damaged or altered (its SHA-256 differs); install it again")
        return [file]

    def origin(self, split: str) -> str:
        return f"shipped sample {self.name}/{split}.parquet"

    def provenance(self) -> str:
        return (SAMPLES / "README.md").read_text(encoding="utf-8").partition("## Provenance")[2].strip()


class FolderSource(FileSource):
    """A folder whose file names say the split."""

    def __init__(self, task: str, folder: str | Path):
        super().__init__(task)
        self.folder = Path(folder)

    def splits(self) -> list[str]:
        return list(files_by_split(self.task, self.folder))

    def files(self, split: str) -> list[Path]:
        found = files_by_split(self.task, self.folder)
        if split not in found:
            raise DataError(f"{self.folder}: has no {self.task} file for split {split!r}; it has {', '.join(found)}")
        return found[split]


class NamedFilesSource(FileSource):
    """Files named by the user, by split or not."""

    def __init__(self, task: str, data_files: Paths | Mapping[str, Paths]):
        super().__init__(task)
        self.found = named_files(data_files)

    def splits(self) -> list[str]:
        return [split for split in SPLITS if split in self.found] or ["train"]

    def files(self, split: str) -> list[Path]:
        # Files whose names say no split serve any; those of another split never do, or test puzzles get trained on.
        files = self.found.get(split) or self.found.get(None)
        if not files:
            raise DataError(
                f"data_files has no file for split {split!r}, only for {', '.join(map(str, self.found))}; "
                f"to use one all the same, name it for no split, or give {option('data_files', {split: 'FILE'})}"
            )
        return files


@dataclass(frozen=True)
class Pin:
    """A data set on the Hub at one commit, with the SHA-256 of its files."""

    repo_id: str
    revision: str
    files: Mapping[str, tuple[str, str]]  # split -> (file, sha256)


PINS = {
    "sudoku": Pin(
        "sapientinc/sudoku-extreme",
        "58942f96baeb572ca3127e2a9e9c70f330783d6b",
        {
            "train": ("train.csv", "64b46674db0148e0d73a16346dadeb2b1c00824d3fca3f85b2ae7037f6b4b38e"),
            "test": ("test.csv", "a2fd52aea23d331d5b4ee723c856236e838a9fb9a70e66f4e0e0cf26c338c6a8"),
        },
    ),
    "maze": Pin(
        "sapientinc/maze-30x30-hard-1k",
        "549754de3d67eebe57b6b22c7d226b9412d55b07",
        {
            "train": ("train.csv", "25f9e39b5aee16967da41ba63b2d1d75cf608c2360d8a1419d827f9859dbafa0"),
            "test": ("test.csv", "5120d52088fb3f8036e62e90103808a79ba58847d8601f9451f40991b0903a62"),
        },
    ),
}


class HubSource(FileSource):
    """The pinned files of Sudoku-Extreme and Maze-30x30-Hard, from the Hub or from its local cache."""

    has_one_solution_each = True

    def __init__(self, task: str):
        super().__init__(task)
        if task not in PINS:
            raise DataError(f"dataset='hub' knows {', '.join(PINS)}, not {task!r}; name a data set of your own")
        self.pin = PINS[task]

    def splits(self) -> list[str]:
        return list(self.pin.files)

    def files(self, split: str) -> list[Path]:
        from huggingface_hub import hf_hub_download

        pin = self.pin
        if split not in pin.files:
            raise DataError(f"{pin.repo_id}: has no split {split!r}; it has {', '.join(pin.files)}")
        name, sha256 = pin.files[split]
        try:
            file = Path(hf_hub_download(pin.repo_id, name, repo_type="dataset", revision=pin.revision))
        except (OSError, ValueError) as error:  # no network, offline mode, no such file or revision
            raise DataError(
                f"{pin.repo_id}/{name} at revision {pin.revision} could not be fetched from the Hub "
                f"({type(error).__name__}); offline, use the shipped sample (name no source) or local data_files"
            ) from error
        if file_sha256(file) != sha256:
            raise DataError(f"{file}: is not the pinned file (its SHA-256 differs); delete it and fetch it again")
        return [file]

    def origin(self, split: str) -> str:
        return f"{self.pin.repo_id}, revision {self.pin.revision}, {self.pin.files[split][0]}"

    def provenance(self) -> str:
        return (
            f"[{self.pin.repo_id}](https://huggingface.co/datasets/{self.pin.repo_id}), revision {self.pin.revision}."
        )

    def key(self) -> str:
        return f"{self.pin.repo_id}@{self.pin.revision}"


class DatasetSource(Source):
    """A `datasets` data set: a Hub id ("org/name" or "org/name@revision"), a local folder, or one in memory."""

    def __init__(self, task: str, dataset: "str | Path | datasets.Dataset | datasets.DatasetDict"):
        super().__init__(task)
        self.dataset = dataset
        self.name = f"dataset {dataset}" if isinstance(dataset, str | Path) else "dataset in memory"

    def _load(self) -> "dict[str | None, datasets.Dataset]":
        """The data set of each split; under None one that serves any, as a file whose name says no split does."""
        from datasets import Dataset, load_dataset
        from datasets.exceptions import DatasetsError

        loaded = self.dataset
        if isinstance(loaded, str | Path):
            path, _, revision = str(loaded).partition("@")
            refuse_saved_to_disk(Path(path))
            try:
                loaded = load_dataset(path, revision=revision or None)
            except (OSError, ValueError, DatasetsError) as error:  # no network, no such data set, broken files
                raise DataError(f"{self.name}: could not be loaded: {str(error).splitlines()[0]}") from error
        splits = {None: loaded} if isinstance(loaded, Dataset) else loaded
        if not isinstance(splits, dict) or not all(isinstance(part, Dataset) for part in splits.values()):
            raise DataError(
                f"{self.name}: is a {type(loaded).__name__}; allowed: Dataset, DatasetDict, a name, a folder"
            )
        return splits

    def splits(self) -> list[str]:
        found = self._load()
        return [split for split in SPLITS if split in found] or ["train"]

    def read(self, split: str, columns: Columns | None = None, characters: str | None = None) -> Rows:
        found = self._load()
        part = found.get(split, found.get(None))
        if part is None:
            raise DataError(f"{self.name}: has no split {split!r}; it has {', '.join(map(str, found))}")
        name = f"{self.name}, split {split}"
        if part.format["type"] == "custom":
            raise DataError(
                f"{name}: has a transform (set_transform, with_transform), which acts whenever a row is read, and here "
                f"each is read once; give the rows themselves, as of .map(FUNCTION), or drop it by .with_format(None)"
            )
        names = part.column_names
        chosen = choose_columns(names, columns, name)
        rows = part.select_columns(list(chosen.values())).with_format("arrow")[:]
        table, note = normalise(self.task, rows, chosen, name, "dataset"), describe_columns(names, chosen, name)
        return Rows(table, ((name, table.num_rows),), name, (note,) if note else ())

    def provenance(self) -> str:
        return f"The {self.name}."

    def key(self) -> str:
        return " ".join(f"{split}:{part._fingerprint}" for split, part in self._load().items())


def named_source(data: str | None) -> dict[str, Any]:
    """What a user calls the data, as the keyword of `open_source` that it is meant for; {} (the sample) for None.

    Args:
        data: a file or a folder that is there, a Hub id (org/name[@revision]), or "hub" for the pinned benchmark.

    Raises:
        DataError: it is none of these.
    """
    if data is None:
        return {}
    if Path(data).is_dir():
        return {"data_dir": data}
    if Path(data).is_file():
        return {"data_files": data}
    name = data.partition("@")[0]
    if data == "hub" or (name.count("/") == 1 and not Path(name).suffix):
        return {"dataset": data}
    raise DataError(f"--data {data!r}: no such file or folder (and not a Hub id of the form org/name)")


def open_source(
    task: str,
    data_dir: str | Path | None = None,
    data_files: Paths | Mapping[str, Paths] | None = None,
    dataset: "str | Path | datasets.Dataset | datasets.DatasetDict | None" = None,
    grid_shape: tuple[int, int] | None = None,
) -> Source:
    """The source that the arguments name: the shipped sample, of this shape, if they name none.

    Raises:
        DataError: they name two, or there is no such sample.
    """
    named = {"data_dir": data_dir, "data_files": data_files, "dataset": dataset}
    given = [name for name, value in named.items() if value is not None]
    if len(given) > 1:
        raise DataError(f"{' and '.join(given)} are given; name one source")
    if data_dir is not None:
        return FolderSource(task, data_dir)
    if data_files is not None:
        return NamedFilesSource(task, data_files)
    if dataset is None:
        return SampleSource(task, grid_shape)
    is_hub = isinstance(dataset, str | Path) and str(dataset) == "hub"
    return HubSource(task) if is_hub else DatasetSource(task, dataset)
