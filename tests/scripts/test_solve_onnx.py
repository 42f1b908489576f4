"""solve_onnx.py in this process: files that are damaged, and puzzles that halt at steps of their own."""

import io
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modeling_trm.exporting import solve_onnx

GOOD_FACTS = {
    "format": "onnx", "file": "step.onnx", "task": "sudoku", "grid_shape": [4, 4], "characters": ".1234",
    "blank_token_id": 1, "max_steps": 4, "halt": 0.5, "latent_shape": [16, 8], "num_latents": 2,
}  # fmt: skip


BAD_FACTS = ({"grid_shape": [4]}, {"num_latents": 3}, {"max_steps": 0}, {"halt": 1.0}, {"latent_shape": []})


@pytest.mark.parametrize("change", [*GOOD_FACTS, [], *BAD_FACTS])
def test_damaged_facts_are_one_line(change: Any, tmp_path: Path, capsys) -> None:
    """One is missing, all are, or one is wrong."""
    facts: Any = {**GOOD_FACTS, **change} if isinstance(change, dict) else {**GOOD_FACTS}
    if isinstance(change, str):
        del facts[change]
    (tmp_path / "export.json").write_text(json.dumps(change if change == [] else facts), encoding="utf-8")
    assert solve_onnx.main(["--export", str(tmp_path), "1" * 16]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {tmp_path / 'export.json'} is damaged: ") and shown.count("\n") == 1
    assert "list" in shown if change == [] else (change if isinstance(change, str) else next(iter(change))) in shown


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        (b"", "is damaged"),
        (b"PK\x03\x04 and no more", "is damaged"),
        (b"some text", "is damaged"),
        ({"z_H": np.zeros(8, np.float32)}, "is damaged: .*z_L"),
        ({"z_H": np.zeros(8, np.float32), "z_L": np.zeros(9, np.float32)}, r"is damaged: z_L is float32 \(9,\)"),
        ({"z_H": np.zeros(8, np.int64), "z_L": np.zeros(8, np.float32)}, r"is damaged: z_H is int64 \(8,\)"),
    ],
)
def test_damaged_initial_states_are_one_line(content: Any, message: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "export.json").write_text(json.dumps(GOOD_FACTS), encoding="utf-8")
    path = tmp_path / "initial_state.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, **content)
    assert solve_onnx.main(["--export", str(tmp_path), "1" * 16]) == 2
    assert re.fullmatch(rf"error: {re.escape(str(path))} {message}.*\n", capsys.readouterr().err)


class Scripted:
    """A session whose puzzle n halts at step n + 1 and answers the step's number in every cell."""

    def __init__(self, halt_logits: list[list[float]]) -> None:
        self.halt_logits, self.step = halt_logits, 0

    def run(self, _names, inputs):
        number = inputs["input_ids"][:, 0]  # of each puzzle that still runs
        assert np.array_equal(inputs["z_H"][:, 0, 0], np.where(self.step, number, 0)), "a state of another puzzle"
        logits = np.zeros((len(number), 2, 9), dtype=np.float32)
        logits[:, :, self.step] = 1
        halt = np.array([self.halt_logits[n][self.step] for n in number], dtype=np.float32)
        self.step += 1
        return [logits, halt, np.broadcast_to(number[:, None, None], (len(number), 3, 1)).astype(np.float32)]


def test_the_loop_stops_each_puzzle_for_itself() -> None:
    nan = math.nan
    session = Scripted([[-1, -1, -1, -1], [-1, 2, 9, 9], [0, 0, 3, 9], [nan, 9, 9, 9], [1, 9, 9, 9]])
    facts = {"latent_shape": [3, 1], "blank_token_id": None, "halt": 0.5}
    input_ids = np.repeat(np.arange(5)[:, None], 2, axis=1)
    answers, probability, steps = solve_onnx.solve(session, {"z_H": np.zeros(1)}, input_ids, facts, 4)
    assert steps.tolist() == [4, 2, 3, 1, 1]
    assert answers[:, 0].tolist() == [3, 1, 2, 0, 0]
    wanted = 1 / (1 + np.exp([1.0, -2.0, -3.0, nan, -1.0]))
    np.testing.assert_allclose(probability, wanted)
    for halt, expected in ((0.95, [4, 3, 3, 1, 2]), (None, [4] * 5)):
        session = Scripted(session.halt_logits)
        *_, steps = solve_onnx.solve(session, {"z_H": np.zeros(1)}, input_ids, facts | {"halt": halt}, 4)
        assert steps.tolist() == expected


def test_wrong_arguments(capsys, refused, monkeypatch) -> None:
    assert "--max-steps" in refused(solve_onnx.main, ["--export", "x", "--max-steps", "0", "1"])
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert solve_onnx.main(["--export", "no/such/folder", "-"]) == 2
    assert "'no/such/folder' holds no export.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("puzzle", "problem"),
    [
        ("#####S  ##  G#####", "18 cells, expected 20 (4 x 5)"),
        ("######S  ##  G######", None),
        ("######SS ##  G######", "the maze has 2 cells 'S', expected 1"),
        ("######So ##  G######", "the maze has 1 cells 'o', expected 0"),
    ],
)
def test_mazes(puzzle: str, problem: str | None) -> None:
    facts = {"grid_shape": [4, 5], "characters": "# SGo", "task": "maze"}
    assert solve_onnx.find_problem(puzzle, facts) == problem


def test_a_maze_file_keeps_its_spaces(tmp_path: Path) -> None:
    facts = {"grid_shape": [3, 3], "task": "maze"}
    path = tmp_path / "maze.txt"
    path.write_text("S  \n   \n  G\n\nS #   #G \nS \n", encoding="utf-8")
    assert list(solve_onnx.read(str(path), facts)) == ["S       G", "S #   #G ", "S "]


def test_a_zero_is_a_blank_where_it_can_be_no_digit(tmp_path: Path) -> None:
    path = tmp_path / "sudoku.txt"
    for side, read in ((4, "." * 16), (16, "0" * 256)):
        facts = {"grid_shape": [side, side], "task": "sudoku", "characters": ".123456789ABCDEFG"[: side + 1]}
        path.write_text("0" * side**2, encoding="utf-8-sig")
        assert list(solve_onnx.read(str(path), facts)) == [read]
    assert "row 1, column 1: '0' is not allowed" in str(solve_onnx.find_problem(read, facts))


@pytest.mark.parametrize("where", ["row", "column", "box"])
def test_repeated_digits_are_named(where: str) -> None:
    cells = {"row": (0, 3), "column": (0, 12), "box": (0, 5)}[where]
    grid = "".join("2" if number in cells else "." for number in range(16))
    assert solve_onnx.find_repeated_digit(grid, 4) == f"'2' is given twice in {where} 1"
    assert solve_onnx.find_repeated_digit("1234341221434321", 4) is None
