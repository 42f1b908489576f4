"""Cuts the small samples that ship inside the package from the full parquet files, and generates the puzzles of other
sizes. Deterministic.

Example:
    python scripts/make_samples.py --data-dir /data/puzzles --output datasets_builders/samples

The folder must hold sudoku_easy_{train,test}, sudoku_hard_{train,test} and maze_hard_{train,test}.parquet. Only rows
whose source begins with gen_ are taken. Train and validation come from the train files, test from the test files;
no solution of one split is a symmetric image of one of another.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasets_builders.families import maze_families, solution_families
from datasets_builders.features import PuzzleSet
from datasets_builders.files import file_sha256
from datasets_builders.maze_generation import generate_mazes
from datasets_builders.sudoku_generation import generate_sudokus
from datasets_builders.validation import DataError, check_paths, check_tokens, tokenise
from modeling_trm.processing_trm import GridProcessor
from modeling_trm.randomness_trm import random_bits

SEED = 0
SPLITS = ("test", "validation", "train")  # the order of choice: the later ones give way
# source: (file it comes from, rows of test, validation, train)
Plan = dict[str, tuple[str, tuple[int, int, int]]]
SUDOKU: Plan = {
    "gen_easy": ("sudoku_easy", (1000, 500, 6000)),
    "gen_unbiased": ("sudoku_easy", (1000, 500, 13500)),
    "gen_vicinity_hard": ("sudoku_hard", (1000, 500, 6000)),
}
MAZE: Plan = {"gen_maze_30x30_hard": ("maze_hard", (1000, 100, 900))}
# Side of the Sudokus: rows of test, validation, train; equal ones are dropped.
OTHER_SIDES = {4: (200, 0, 0), 16: (100, 60, 400), 25: (10, 0, 0)}
# Shape of the mazes: (moves of the shortest path at least, rows of test, validation, train).
OTHER_MAZES = {(10, 10): (15, (1000, 300, 3000)), (15, 15): (31, (100, 0, 0)), (20, 20): (41, (100, 0, 0))}
MAX_BYTES = 2_700_000


def read_source(data_dir: Path, file: str, split: str, source: str) -> pa.Table:
    """The rows of a source, in file order. Validation is cut from the train file."""
    path = data_dir / f"{file}_{'test' if split == 'test' else 'train'}.parquet"
    table = pq.read_table(path, columns=["source", "question", "answer", "rating"])
    table = table.filter(pa.compute.equal(table["source"], source))
    if not source.startswith("gen_") or table.num_rows == 0:
        raise DataError(f"{path}: no rows of source {source!r} that may be shipped")
    return table.combine_chunks()


def families(processor: GridProcessor, table: pa.Table) -> np.ndarray:
    """One value a row, equal for symmetric images; every row is checked on the way."""
    inputs, bad_inputs = tokenise(processor, table["question"].to_pylist())
    labels, bad_labels = tokenise(processor, table["answer"].to_pylist())
    reasons = bad_inputs | bad_labels | check_tokens(processor, inputs, labels)
    if processor.task == "maze":
        reasons |= check_paths(processor, inputs, labels)
    if reasons:
        raise DataError(f"{len(reasons)} rows are bad, the first: {next(iter(reasons.items()))}")
    if processor.task == "sudoku":
        return solution_families(labels)
    return np.array(maze_families(inputs.reshape(-1, *processor.grid_shape)), dtype=object)


def spread(table: pa.Table, candidates: np.ndarray, size: int) -> np.ndarray:
    """`size` of the candidates, evenly spaced once ordered by rating (ties by hash): keeps the mix of ratings."""
    if size > len(candidates):
        raise DataError(f"{size} rows wanted of {len(candidates)}")
    ties = random_bits(SEED, candidates, stream=1, count=1)[:, 0]
    ordered = candidates[np.lexsort((ties, table["rating"].to_numpy()[candidates]))]
    return np.sort(ordered[((np.arange(size) + 0.5) * len(ordered) / size).astype(np.int64)])


def cut(task: str, plan: Plan, data_dir: Path) -> dict[str, pa.Table]:
    """The rows of each split."""
    processor = GridProcessor(task)
    parts: dict[str, list[pa.Table]] = {split: [] for split in SPLITS}
    taken: set = set()  # families of the splits chosen before
    for position, split in enumerate(SPLITS):
        chosen: set = set()
        for source, (file, sizes) in plan.items():
            table = read_source(data_dir, file, split, source)
            family = families(processor, table)
            free = np.array([row for row, value in enumerate(family.tolist()) if value not in taken])
            kept = f"{len(free)} of {table.num_rows} rows are of no family taken before"
            print(f"{task} {split} {source}: {kept}", file=sys.stderr)
            rows = spread(table, free, sizes[position])
            chosen.update(family[rows].tolist())
            parts[split].append(table.take(rows))
        taken |= chosen
    return {split: shuffled(pa.concat_tables(tables)) for split, tables in parts.items()}


def shuffled(table: pa.Table) -> pa.Table:
    """Sources mixed, so that the first rows of a file are like the rest."""
    keys = random_bits(SEED, np.arange(table.num_rows), stream=2, count=1)[:, 0]
    return table.take(np.argsort(keys, kind="stable")).combine_chunks()


def write(table: pa.Table, path: Path) -> None:
    """Replaces the file at once, or leaves it alone if the disk is full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    try:
        pq.write_table(
            table.replace_schema_metadata(None),
            temporary,
            compression="zstd",
            compression_level=19,
            use_dictionary=["source", "rating"],
            write_statistics=False,
            data_page_size=1 << 24,
            write_batch_size=1 << 20,
            row_group_size=1 << 20,
        )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_splits(puzzles: PuzzleSet, rows: tuple[int, int, int], folder: Path) -> None:
    """The first rows for the first split, and so on; of a split without rows there is no file."""
    for split, part in zip(SPLITS, np.split(np.arange(len(puzzles)), np.cumsum(rows)[:-1]), strict=True):
        if len(part):
            write(puzzles.select(part).to_table(), folder / f"{split}.parquet")


def write_sums(output: Path) -> int:
    """Writes SHA256SUMS of all samples; returns their size in bytes."""
    files = sorted(output.glob("*/*.parquet"))
    sums = "".join(f"{file_sha256(file)}  {file.relative_to(output).as_posix()}\n" for file in files)
    temporary = output / "SHA256SUMS.tmp"
    temporary.write_text(sums, encoding="utf-8")
    os.replace(temporary, output / "SHA256SUMS")
    return sum(file.stat().st_size for file in files)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the full parquet files")
    parser.add_argument("--output", type=Path, default=Path("datasets_builders/samples"))
    arguments = parser.parse_args(argv)
    counts: dict[str, dict[str, int]] = {}
    try:
        for task, plan in (("sudoku", SUDOKU), ("maze", MAZE)):
            for split, table in cut(task, plan, arguments.data_dir).items():
                write(table, arguments.output / task / f"{split}.parquet")
                sources = table["source"].value_counts().to_pylist()
                counts[f"{task}/{split}"] = {row["values"]: row["counts"] for row in sources}
        for side, rows in OTHER_SIDES.items():
            write_splits(generate_sudokus(side, sum(rows), SEED), rows, arguments.output / f"sudoku-{side}x{side}")
        for shape, (least_moves, rows) in OTHER_MAZES.items():
            mazes = generate_mazes(shape, sum(rows), least_moves - 1, SEED)
            write_splits(mazes, rows, arguments.output / "maze-{}x{}".format(*shape))
    except (DataError, OSError) as error:
        print(f"make_samples: {error}", file=sys.stderr)
        return 1
    size = write_sums(arguments.output)
    print(json.dumps({"rows": counts, "bytes": size}, indent=2))
    return 0 if size <= MAX_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
