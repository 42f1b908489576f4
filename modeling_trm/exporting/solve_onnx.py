"""Solve puzzles with an exported checkpoint: numpy and onnxruntime alone, neither PyTorch nor this package.

examples:
  trm export --model CHECKPOINT --output DIR
  trm solve-onnx --export DIR "$PUZZLE"                    81 characters, . or 0 for a blank
  trm solve-onnx --export DIR puzzles.txt --max-steps 32        one puzzle a line, or 9 lines of 9
  trm solve-onnx --export DIR - --json < puzzles.txt

This file needs no other: copy it, or its function `solve`. Exit code: 0 when every puzzle was answered (right or
wrong), 2 when one was malformed or contradictory, or on another error; the others are still answered.
"""

import argparse
import json
import math
import os
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

BATCH_SIZE = 64
LATENTS = {1: ("z_H",), 2: ("z_H", "z_L")}
# What this script reads of export.json, and what that must be.
FACTS: dict[str, Any] = {
    "format": str, "file": str, "task": str, "grid_shape": list, "characters": str, "blank_token_id": (int, type(None)),
    "max_steps": int, "halt": (float, type(None)), "latent_shape": list, "num_latents": int,
}  # fmt: skip
UNKNOWN_CELL = "?"  # shown where the model answers padding


def solve(
    session: Any, initial: dict[str, np.ndarray], input_ids: np.ndarray, facts: dict[str, Any], max_steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Supervision steps until a puzzle's halt probability is above facts["halt"] (None: never), at most max_steps.

    A puzzle that has stopped leaves the batch.

    Args:
        initial: z_H (and z_L) [D]. input_ids: int64 [B, L]. facts: export.json.

    Returns:
        answers [B, L], halt probability [B], steps [B].
    """
    shape = (len(input_ids), *facts["latent_shape"])
    stop = None if facts["halt"] is None else math.log(facts["halt"] / (1 - facts["halt"]))  # a halt logit
    latents = [np.broadcast_to(z_D, shape) for z_D in initial.values()]
    rows, answers = np.arange(len(input_ids)), np.empty_like(input_ids)
    halt_logits, steps = np.empty(len(input_ids)), np.zeros(len(input_ids), dtype=int)
    for step in range(1, max_steps + 1):
        inputs = {"input_ids": input_ids[rows], "puzzle_ids": np.zeros(len(rows), dtype=np.int64)}
        logits, halt_logits[rows], *latents = session.run(None, inputs | dict(zip(initial, latents)))
        answers[rows], steps[rows] = logits.argmax(-1), step
        if stop is None:
            continue
        running = halt_logits[rows] <= stop
        rows, latents = rows[running], [z[running] for z in latents]
        if not len(rows):
            break
    if facts["blank_token_id"] is not None:  # what is given stays
        answers = np.where(input_ids == facts["blank_token_id"], answers, input_ids)
    return answers, 1 / (1 + np.exp(-halt_logits)), steps


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    arguments = parse_arguments(argv, prog)
    try:
        facts, initial, session = load(Path(arguments.export))
        puzzles = [puzzle for argument in arguments.puzzles for puzzle in read(argument, facts)]
        if not puzzles:
            raise ValueError("no puzzle was given")
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    problems = [find_problem(puzzle, facts) for puzzle in puzzles]
    for number, problem in enumerate(problems, start=1):
        if problem is not None:
            print(f"error: puzzle {number}: {problem}", file=sys.stderr)
    good = [puzzle for puzzle, problem in zip(puzzles, problems) if problem is None]
    results = answer_all(good, facts, initial, session, arguments.max_steps or facts["max_steps"])
    show(results, facts, arguments.json)
    return 2 if len(good) < len(puzzles) else 0


def answer_all(
    puzzles: list[str], facts: dict[str, Any], initial: dict[str, np.ndarray], session: Any, max_steps: int
) -> list[dict[str, Any]]:
    """Puzzle, answer, steps and halt probability (None for a NaN) of each puzzle."""
    results: list[dict[str, Any]] = []
    characters = UNKNOWN_CELL + facts["characters"]
    for start in range(0, len(puzzles), BATCH_SIZE):
        batch = puzzles[start : start + BATCH_SIZE]
        input_ids = np.array([[facts["characters"].index(c) + 1 for c in puzzle] for puzzle in batch], dtype=np.int64)
        solved = solve(session, initial, input_ids, facts, max_steps)
        for puzzle, answer_L, probability, steps in zip(batch, *solved):
            answer = "".join(characters[token] if token < len(characters) else UNKNOWN_CELL for token in answer_L)
            finite = float(probability) if math.isfinite(probability) else None
            results.append({"puzzle": puzzle, "answer": answer, "steps": int(steps), "halt_probability": finite})
    return results


def parse_arguments(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    summary, _, epilog = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog=prog, description=summary, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("puzzles", nargs="+", metavar="PUZZLE", help="a puzzle, a file of puzzles, or - for stdin")
    parser.add_argument("--export", required=True, metavar="DIR", help="folder that `trm export` wrote")
    parser.add_argument("--max-steps", type=int, metavar="N", help="supervision steps (default: the checkpoint's own)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of grids")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.max_steps is not None and arguments.max_steps < 1:
        parser.error(f"--max-steps must be at least 1, got {arguments.max_steps}")
    return arguments


def load(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray], Any]:
    """export.json, the initial latents, the session. Raises OSError, ValueError or ImportError with one line."""
    if not (folder / "export.json").is_file():
        raise FileNotFoundError(f"{str(folder)!r} holds no export.json; `trm export` writes such folders")
    facts = load_facts(folder / "export.json")
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"{error}: pip install onnxruntime") from error
    initial = load_initial(folder / "initial_state.npz", facts)
    try:
        session = onnxruntime.InferenceSession(folder / facts["file"], providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder / facts['file']}: onnxruntime cannot load it: {reason}") from error
    taken = {one.name: one.shape[1:] for one in session.get_inputs()}
    latents = dict.fromkeys(initial, facts["latent_shape"])
    if taken != {"input_ids": [math.prod(facts["grid_shape"])], "puzzle_ids": [], **latents}:
        raise ValueError(f"{folder / facts['file']}: takes {taken}, which is not what export.json says")
    return facts, initial, session


def load_facts(path: Path) -> dict[str, Any]:
    """export.json, with all that is read here."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(facts, dict):
        raise ValueError(f"{path} is damaged: it holds a {type(facts).__name__}, not an object")
    if facts.get("format", "onnx") != "onnx" or facts.get("task") == "arc":
        raise ValueError(
            f"{str(path.parent)!r} is an export of format {facts.get('format')!r} for task {facts.get('task')!r}; this "
            f"script runs onnx, and reads Sudoku, mazes and text grids"
        )
    for name, kind in FACTS.items():
        if name not in facts:
            raise ValueError(f"{path} is damaged: it has no {name!r}")
        if not isinstance(facts[name], kind):
            raise ValueError(f"{path} is damaged: {name} is {facts[name]!r}")
    if (
        [type(size) for size in facts["grid_shape"]] != [int, int]
        or {type(size) for size in facts["latent_shape"]} != {int}
        or facts["num_latents"] not in LATENTS
        or facts["max_steps"] < 1
        or (facts["halt"] is not None and not 0 < facts["halt"] < 1)
    ):
        shown = ", ".join(
            f"{name} {facts[name]!r}" for name in ("grid_shape", "latent_shape", "num_latents", "max_steps", "halt")
        )
        raise ValueError(f"{path} is damaged: {shown}")
    return facts


def load_initial(path: Path, facts: dict[str, Any]) -> dict[str, np.ndarray]:
    """The initial latents, each float32 [D], in the order of the graph's inputs."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; `trm export` writes it")
    try:
        with path.open("rb") as stream, np.load(stream) as file:  # np.load would leave a bad file open
            initial = {name: file[name] for name in LATENTS[facts["num_latents"]]}
    except (ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    for name, latent in initial.items():
        if latent.shape != tuple(facts["latent_shape"][-1:]) or latent.dtype != np.float32:
            raise ValueError(f"{path} is damaged: {name} is {latent.dtype} {latent.shape}")
    return initial


def read(argument: str, facts: dict[str, Any]) -> Iterator[str]:
    """The puzzles of "-" (stdin), of a file, or the argument itself: one a line, or in rows."""
    if argument == "-":
        text = sys.stdin.read()
    elif os.path.isfile(argument):
        text = Path(argument).read_text(encoding="utf-8-sig")
    else:
        text = argument
    height, width = facts["grid_shape"]
    rows = ""
    for line in [*text.splitlines(), ""]:
        cells = line
        if facts["task"] == "sudoku":  # as people write it: spaces, box lines, 0 for a blank
            cells = "".join(c for c in line if not c.isspace() and c not in "|+-")
            cells = cells if width > 9 else cells.replace("0", ".")  # in a large one it may be a digit
        if not rows and cells and len(cells) != width:
            yield cells
            continue
        rows += cells
        if rows and (len(rows) >= height * width or not (cells or line.strip())):
            yield rows
            rows = ""


def find_problem(puzzle: str, facts: dict[str, Any]) -> str | None:
    """What makes this no puzzle: layout, characters, clues that contradict; None for a good one."""
    height, width = facts["grid_shape"]
    if len(puzzle) != height * width:
        return f"{len(puzzle)} cells, expected {height * width} ({height} x {width})"
    for position, character in enumerate(puzzle):
        if character not in facts["characters"]:
            row, column = divmod(position, width)
            return f"row {row + 1}, column {column + 1}: {character!r} is not allowed; allowed: {facts['characters']!r}"
    if facts["task"] == "sudoku":
        return find_repeated_digit(puzzle, height)
    if facts["task"] == "maze":
        for character, expected in (("S", 1), ("G", 1), ("o", 0)):
            if puzzle.count(character) != expected:
                return f"the maze has {puzzle.count(character)} cells {character!r}, expected {expected}"
    return None


def find_repeated_digit(grid: str, size: int) -> str | None:
    """The first digit that stands twice in a row, column or box of a Sudoku; None without one."""
    box = math.isqrt(size)
    cells = np.array(list(grid)).reshape(size, size)
    boxes = cells.reshape(box, box, box, box).transpose(0, 2, 1, 3).reshape(size, size)
    for name, units in (("row", cells), ("column", cells.T), ("box", boxes)):
        for number, unit in enumerate(units, start=1):
            digits, counts = np.unique(unit[unit != "."], return_counts=True)
            if (counts > 1).any():
                return f"{str(digits[counts > 1][0])!r} is given twice in {name} {number}"
    return None


def show(results: list[dict[str, Any]], facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(results, indent=2, allow_nan=False))
        return
    for result in results:
        plural = "s" if result["steps"] > 1 else ""
        probability = "undefined (NaN)" if result["halt_probability"] is None else f"{result['halt_probability']:.3f}"
        print(as_grid(result["puzzle"], facts))
        print(f"\nanswer after {result['steps']} supervision step{plural}, halt probability {probability}:")
        print(as_grid(result["answer"], facts))
        if facts["task"] == "sudoku":
            print("a valid solution" if is_solved(result["puzzle"], result["answer"]) else "NOT a valid solution")
        print()


def is_solved(puzzle: str, answer: str) -> bool:
    """Whether the answer to a Sudoku obeys its rules and keeps what is given."""
    kept = all(given in (".", cell) for given, cell in zip(puzzle, answer))
    full = "." not in answer and UNKNOWN_CELL not in answer
    return kept and full and find_repeated_digit(answer, math.isqrt(len(answer))) is None


def as_grid(cells: str, facts: dict[str, Any]) -> str:
    """The lines of a grid as `trm solve` shows them."""
    width = facts["grid_shape"][1]
    rows = [cells[start : start + width] for start in range(0, len(cells), width)]
    return "\n".join(with_boxes(rows) if facts["task"] == "sudoku" else rows)


def with_boxes(rows: list[str]) -> list[str]:
    """A Sudoku's rows with spaces between the cells and lines between the boxes."""
    box = math.isqrt(len(rows))
    between = "+".join(["-" * (2 * box + 1)] * box)[1:-1]
    lines = [" | ".join(" ".join(row[start : start + box]) for start in range(0, len(row), box)) for row in rows]
    return [line for r, row in enumerate(lines) for line in ([between] if r and r % box == 0 else []) + [row]]


if __name__ == "__main__":
    sys.exit(main())
