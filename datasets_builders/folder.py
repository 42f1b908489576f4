"""Writes a data set folder that goes to the Hub as it is: parquet files, a card with `configs:`, a JSON summary.

The folder is built under a temporary name beside its place and renamed at the end: it is there whole, or not at all.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets_builders.features import PuzzleSet
from datasets_builders.files import file_sha256
from modeling_trm.utils.files import write_json, write_text
from modeling_trm.utils.outputs import new_folder

ROWS_PER_FILE = 500_000
SIZE_CATEGORIES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
COLUMN_TEXT = {
    "sudoku": "row by row, `.` for a blank",
    "maze": "row by row: `#` wall, ` ` open, `S` start, `G` goal, `o` path (answer only)",
    "grid": "row by row",
}


def write_dataset_folder(
    puzzles: Mapping[str, PuzzleSet],
    output: Path,
    *,
    provenance: str,
    license_id: str | None,
    options: Mapping[str, Any],
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes the splits and returns the summary that is also written as summary.json.

    Raises:
        ValueError: the output exists and may not be replaced; see `utils.outputs.check_new_folder`.
        OSError: the disk is full or not writable; nothing is left behind then.
    """
    with new_folder(output, overwrite) as new:
        return _write_all(new, puzzles, provenance, license_id, options)


def _write_all(
    folder: Path,
    puzzles: Mapping[str, PuzzleSet],
    provenance: str,
    license_id: str | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    (folder / "data").mkdir()
    first = next(iter(puzzles.values()))
    summary: dict[str, Any] = {
        "task": first.task,
        "grid_shape": first.processor.grid_shape,
        "alphabet": first.processor.alphabet,
        "options": dict(options),
        "splits": {split: _write_split(folder, split, part) for split, part in puzzles.items()},
    }
    card = _card(summary, provenance, license_id)
    write_text(folder / "README.md", card)
    write_json(folder / "summary.json", summary)
    return summary


def _write_split(folder: Path, split: str, puzzles: PuzzleSet) -> dict[str, Any]:
    import pyarrow.parquet as pq

    table = puzzles.to_table()
    starts = range(0, len(puzzles), ROWS_PER_FILE)
    files = {}
    for number, start in enumerate(starts):
        name = f"data/{split}-{number:05d}-of-{len(starts):05d}.parquet"
        pq.write_table(table.slice(start, ROWS_PER_FILE), folder / name, compression="zstd")
        files[name] = file_sha256(folder / name)
    return {
        "rows": len(puzzles),
        "fingerprint": puzzles.fingerprint,
        "origin": puzzles.origin,
        "sources": dict(sorted(Counter(puzzles.sources.tolist()).items())),
        "mean_rating": round(float(puzzles.ratings.mean()), 3),
        "files": files,
        "several_solutions": puzzles.several_solutions,  # (found, Sudokus searched)
        "bad_rows": [{"file": Path(bad.file).name, "row": bad.row, "reason": bad.reason} for bad in puzzles.bad_rows],
    }


def size_category(rows: int) -> str:
    """The Hub's name for so many rows."""
    return next((name for size, name in SIZE_CATEGORIES if rows < size), "1M<n<10M")


def _card(summary: Mapping[str, Any], provenance: str, license_id: str | None) -> str:
    """README.md: the front matter that `load_dataset` reads, then the card."""
    import yaml

    task, splits = summary["task"], summary["splits"]
    rows = sum(part["rows"] for part in splits.values())
    height, width = summary["grid_shape"]
    front = {
        "pretty_name": f"{task.capitalize()} puzzles {height} x {width}",
        **({"license": license_id} if license_id else {}),
        "tags": [task, "puzzles", "grid-reasoning", "tiny-recursive-model"],
        "size_categories": [size_category(rows)],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits],
            }
        ],
    }
    options = ", ".join(f"{name} {value}" for name, value in summary["options"].items() if value is not None)
    skipped = sum(len(part["bad_rows"]) for part in splits.values())
    several, searched = (
        sum(numbers) for numbers in zip(*(part["several_solutions"] or (0, 0) for part in splits.values()))
    )
    table = [
        f"| {split} | {part['rows']:,} | {part['mean_rating']} | {_counts(part['sources'])} | {part['origin']} |"
        for split, part in splits.items()
    ]
    fingerprints = [f"| {split} | `{part['fingerprint']}` |" for split, part in splits.items()]
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(front, sort_keys=False).strip()}\n---\n",
            f"# {front['pretty_name']}\n",
            f"`question` and `answer` are strings of {height * width} characters, {COLUMN_TEXT[task]}; `source` says "
            "what made a row, `rating` how hard it is (0 where the source has none).\n",
            "```python\nfrom datasets import load_dataset\n",
            'puzzles = load_dataset("THIS_FOLDER_OR_REPOSITORY", split="train")  # streaming=True works too\n```\n',
            "## Rows\n\n| split | rows | mean rating | by source | from |\n|---|---|---|---|---|",
            *table,
            f"\nBuilt with {options}. Every row was checked: size, alphabet, answer against question"
            f"{_CHECKS.get(task, '')}. Rows left out as bad: {skipped} (listed in summary.json)."
            + (f" Puzzles with several solutions: {several} of the {searched} searched." if several else "")
            + "\n",
            f"## Provenance\n\n{provenance}\n",
            "## Fingerprints\n\nSHA-256 over a split's rows as token ids, in order "
            "(`datasets_builders.features.PuzzleSet.fingerprint`):\n\n| split | fingerprint |\n|---|---|",
            *fingerprints,
            "",
        ]
    )


_CHECKS = {"sudoku": ", the rules of Sudoku", "maze": ", the answer a shortest path (all rows or a sample, see above)"}


def _counts(sources: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sources.items())
