"""From an observation to figures, pictures and a page that needs nothing else."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datasets_builders.features import PuzzleSet
from modeling_trm import GridProcessor, TRMForGridReasoning
from modeling_trm.diagnostics.animation import choose_puzzle, solving_gif
from modeling_trm.diagnostics.calibration import area_under_curve
from modeling_trm.diagnostics.diagnosis_plots import write_diagnosis_plots
from modeling_trm.diagnostics.observation import CYCLE, STEP, UPDATE, Moment, Observation, observe
from modeling_trm.diagnostics.page import FIGURES, write_page
from modeling_trm.diagnostics.report import observe_puzzles, summarise_moment, summarise_observation
from modeling_trm.utils.intervals import wilson_interval

SOLVED = np.array([1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1]) + 1


@pytest.fixture
def puzzles() -> PuzzleSet:
    inputs = np.where(np.random.RandomState(0).rand(5, 16) < 0.5, 1, SOLVED).astype(np.uint8)
    labels = np.tile(SOLVED, (5, 1)).astype(np.uint8)
    names, ratings = np.array(["made"] * 5), np.zeros(5, dtype=np.int32)
    return PuzzleSet("sudoku", inputs, labels, names, ratings, GridProcessor("sudoku", grid_shape=(4, 4)))


@pytest.fixture(params=["trm-attn", "tr-mamba2mlpt"])
def model(request: pytest.FixtureRequest, tiny_model: Callable[..., TRMForGridReasoning]) -> TRMForGridReasoning:
    return tiny_model(request.param, num_latents=1 + (request.param == "trm-attn"), blank_token_id=1)


def hand_made(**values: list[list[float]]) -> Observation:
    """Moments of the level of steps from lists [B][T]."""
    columns = {name: torch.tensor(rows).double() for name, rows in values.items()}
    steps = len(next(iter(values.values()))[0])
    moments = [Moment(STEP, t + 1, None, None, {name: c[:, t] for name, c in columns.items()}) for t in range(steps)]
    return Observation(moments, torch.ones(steps, len(columns), 16), torch.ones(steps, len(columns), 16))


def report_of(summary: dict[str, Any]) -> dict[str, Any]:
    facts = {
        "task": "sudoku",
        "dataset": "made <here>",
        "split": "test",
        "command": "python x",
        "hardware": "a machine",
    }
    numbers = {"H_cycles": 2, "L_cycles": 2, "num_latents": 2, "block_operators": ["attention"], "versions": {"a": "1"}}
    return {"model": "runs/model", **facts, **numbers, **summary}


def test_summary_of_a_run(model: TRMForGridReasoning, puzzles: PuzzleSet) -> None:
    seen = observe_puzzles(model, puzzles, 3, batch_size=2, progress=False)
    summary = summarise_observation(seen)
    json.dumps(summary, allow_nan=False)
    config = model.config
    cycles = 3 * config.H_cycles
    assert [len(summary[level]) for level in ("steps", "cycles", "updates")] == [
        3, cycles, cycles * (config.L_cycles + (config.num_latents == 2)),
    ]  # fmt: skip
    ids, labels = (torch.tensor(side).long() for side in (puzzles.inputs, puzzles.labels))
    whole = observe(model, ids, labels=labels, max_steps=3)
    for level, rows in ((STEP, "steps"), (CYCLE, "cycles"), (UPDATE, "updates")):
        for moment, row in zip(whole.level(level), summary[rows], strict=True):
            for name, values in moment.values.items():
                if name not in ("exact_before", "dead"):  # the margin of a cell at 0 hangs on the rounding of its batch
                    assert row[name] == pytest.approx(float(values.mean()), rel=1e-3, abs=1e-5), name
    calibration = summary["calibration"]
    assert calibration["count"] == 15 == sum(entry["count"] for entry in calibration["bins"])


def test_numbers_of_a_hand_made_run() -> None:
    seen = hand_made(
        exact=[[0, 1], [0, 0], [1, 1]],
        exact_before=[[0, 0], [0, 0], [0, 1]],
        dead=[[0, 0], [0, 1], [0, 1]],
        halt_probability=[[0.1, 0.9], [0.2, 0.15], [0.8, torch.nan]],
    )
    summary = summarise_observation(seen)
    first, second = summary["steps"]
    assert first["exact"] == pytest.approx(1 / 3) and second["exact"] == pytest.approx(2 / 3)
    assert second["exact_ci95"] == wilson_interval(2, 3)
    assert (second["dead"], second["dead_unsolved"]) == (pytest.approx(2 / 3), 0.5)
    assert second["halt_probability"] == pytest.approx((0.9 + 0.15) / 2)
    finite, right = np.array([0.1, 0.2, 0.8, 0.9, 0.15]), np.array([0, 0, 1, 1, 0]).astype(bool)
    assert summary["calibration"]["auc"] == area_under_curve(finite, right) == 1
    assert summary["calibration"]["non_finite"] == 1
    assert len(summary["warnings"]) == 1 and "halt_probability is NaN" in summary["warnings"][0]
    assert "exact_before" not in first


def test_nothing_finite_is_no_figure() -> None:
    moment = Moment(CYCLE, 2, 1, None, {"entropy": torch.full((3,), torch.nan)})
    assert summarise_moment(moment) == {"step": 2, "H_cycle": 1, "entropy": None}


@pytest.mark.usefixtures("whole_pictures")
def test_a_diverged_model_is_reported(model: TRMForGridReasoning, puzzles: PuzzleSet, tmp_path: Path) -> None:
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    summary = summarise_observation(observe_puzzles(model, puzzles, 2, progress=False))
    assert any("entropy is NaN or infinite on 5 of 5 puzzles, from step 1" in text for text in summary["warnings"])
    pictures = write_diagnosis_plots(tmp_path, summary)
    page = write_page(tmp_path / "index.html", report_of(summary), pictures).read_text(encoding="utf-8")
    assert "the recursion has diverged" in page


def test_model_of_another_size_is_refused(tiny_model: Callable, puzzles: PuzzleSet) -> None:
    with pytest.raises(ValueError, match="seq_len=9"):
        observe_puzzles(tiny_model("trm-attn", seq_len=9), puzzles, 1, progress=False)


@pytest.mark.usefixtures("whole_pictures")
def test_page_holds_everything(model: TRMForGridReasoning, puzzles: PuzzleSet, tmp_path: Path) -> None:
    seen = observe_puzzles(model, puzzles, 2, progress=False)
    summary = summarise_observation(seen)
    pictures = {"solving": solving_gif(seen, puzzles, 0, tmp_path / "solving.gif")}
    pictures |= write_diagnosis_plots(tmp_path / "plots", summary)
    assert set(pictures) == set(FIGURES)
    page = write_page(tmp_path / "index.html", report_of(summary), pictures).read_text(encoding="utf-8")
    sources = re.findall(r'src="data:image/(\w+);base64,([^"]+)"', page)
    assert [base64.b64decode(content) for _, content in sources] == [path.read_bytes() for path in pictures.values()]
    assert [kind for kind, _ in sources] == ["gif"] + ["png"] * 4
    assert page.count("src=") == 5 and "http" not in page.replace("http-equiv", "")
    assert page.count("<tr>") == 3 and "made &lt;here&gt;" in page
    assert ("rank z_L" in page) == (model.config.num_latents == 2)


def test_plots_without_labels(model: TRMForGridReasoning, puzzles: PuzzleSet, tmp_path: Path) -> None:
    summary = summarise_observation(observe(model, torch.tensor(puzzles.inputs).long(), max_steps=1))
    assert summary["calibration"] is None
    assert set(write_diagnosis_plots(tmp_path, summary)) == {"answers", "latents", "updates"}
    write_page(tmp_path / "index.html", report_of(summary), {})


def test_the_solved_puzzle_that_took_longest_is_shown() -> None:
    changed = [[5, 1, 0, 0], [5, 0, 1, 0], [5, 5, 5, 5], [5, 1, 0, 0]]
    exact = [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 1, 1]]
    assert choose_puzzle(hand_made(cells_changed=changed, exact=exact)) == 1
    assert choose_puzzle(hand_made(cells_changed=changed, exact=[[0] * 4] * 4)) == 0
    assert choose_puzzle(hand_made(cells_changed=changed)) == 0


def frames(path: Path) -> list[np.ndarray]:
    with Image.open(path) as gif:
        pictures = []
        for number in range(gif.n_frames):
            gif.seek(number)
            pictures.append(np.asarray(gif.convert("RGB")).astype(int))
    return pictures


def colour_of(picture: np.ndarray, cell: int, side: int) -> np.ndarray:
    """Near the corner of a cell, beside its character and inside its frame."""
    height, width, _ = picture.shape
    row, column = divmod(cell, side)
    grid = 0.82 * height  # the axes are square and as high as their part of the figure, or as wide
    size = min(grid, 0.94 * width)
    left, top = (width - size) / 2, 0.03 * height + (grid - size) / 2
    return picture[int(top + (row + 0.15) * size / side), int(left + (column + 0.15) * size / side)]


def test_gif_of_a_sudoku(puzzles: PuzzleSet, tmp_path: Path) -> None:
    """Three frames; given cells dark, blank ones pale, then orange where unsure and blue where sure."""
    answers = torch.tensor(puzzles.labels).long().expand(2, 5, 16)
    sure = torch.stack([torch.zeros(5, 16), torch.ones(5, 16)])
    moments = [Moment(STEP, t, None, None, {"halt_probability": torch.rand(5)}) for t in (1, 2)]
    seen = Observation(moments, answers, sure)
    puzzle, unsure, certain = frames(solving_gif(seen, puzzles, 2, tmp_path / "a.gif"))
    blank, given = (int(np.flatnonzero((puzzles.inputs[2] == 1) == wanted)[0]) for wanted in (True, False))
    for picture in (puzzle, unsure, certain):
        assert colour_of(picture, given, 4).max() < 90
    assert colour_of(puzzle, blank, 4).min() > 220
    red, _, blue = colour_of(unsure, blank, 4)
    assert red > blue + 100
    red, _, blue = colour_of(certain, blank, 4)
    assert blue > red + 100


def test_gif_of_a_maze(tmp_path: Path) -> None:
    """Walls dark; an open cell pale until the answer draws the path through it."""
    processor = GridProcessor("grid", (4, 4), alphabet="# SGo")
    processor.task = "maze"  # the task's own size is 30 x 30
    processor.alphabet = None
    inputs = np.array([[1] * 4, [3, 2, 4, 1], [1, 2, 2, 1], [1] * 4], dtype=np.uint8).reshape(1, 16)
    labels = inputs.copy()
    labels[0, 5] = 5
    puzzles = PuzzleSet("maze", inputs, labels, np.array(["a"]), np.zeros(1, np.int32), processor)
    moments = [Moment(STEP, 1, None, None, {"halt_probability": torch.rand(1)})]
    seen = Observation(moments, torch.tensor(labels).long()[None], torch.ones(1, 1, 16))
    puzzle, answer = frames(solving_gif(seen, puzzles, 0, tmp_path / "a.gif"))
    assert colour_of(puzzle, 0, 4).max() < 90 and colour_of(puzzle, 4, 4).max() < 90  # wall and start
    assert colour_of(puzzle, 5, 4).min() > 220
    assert colour_of(answer, 5, 4)[2] > colour_of(answer, 5, 4)[0] + 100
    assert colour_of(answer, 9, 4).min() > 220  # open, and left as it was
