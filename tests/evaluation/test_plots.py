"""The plots are PNG files of the intended size that show the data: another result gives another picture."""

import copy
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from modeling_trm.evaluation import plots, sweep_plots
from modeling_trm.evaluation.plots import accuracy_by_step, halting_histogram, learning_curve, write_plots
from modeling_trm.evaluation.sweep import ANY, PLAIN
from modeling_trm.evaluation.sweep_plots import plot_sweep
from modeling_trm.reasoning_config_trm import SELECTIONS

pytestmark = pytest.mark.usefixtures("whole_pictures")
METRICS: dict[str, Any] = {
    "task": "sudoku",
    "count": 200,
    "by_step": [0.1, 0.3, 0.5, 0.55],
    "by_source": {
        "easy": {"count": 120, "by_step": [0.2, 0.5, 0.8, 0.85]},
        "hard": {"count": 80, "by_step": [0.0, 0.0, 0.05, 0.1]},
    },
    "halting_histogram": [20, 60, 40, 10],
    "never_halted": 70,
    "mean_halting_step": 2.96,
}


def pixels(path: Path) -> np.ndarray:
    """Decodes an 8-bit RGBA PNG with nothing but zlib."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    assert (content[24], content[25]) == (8, 6)  # 8 bits, RGBA
    data, offset = b"", 8
    while offset < len(content):
        length = int.from_bytes(content[offset : offset + 4], "big")
        if content[offset + 4 : offset + 8] == b"IDAT":
            data += content[offset + 8 : offset + 8 + length]
        offset += 12 + length
    rows = zlib.decompress(data)
    assert len(rows) == height * (1 + 4 * width)
    return np.frombuffer(rows, dtype=np.uint8).reshape(height, 1 + 4 * width)


def log_file(folder: Path, steps: int = 60, evaluations: bool = True) -> Path:
    path = folder / "log.jsonl"
    with path.open("w", encoding="utf-8") as log:
        for step in range(1, steps + 1):
            record = {"step": step, "loss": 2.0 / step, "exact_accuracy": step / steps, "seconds": 3.0 * step}
            log.write(json.dumps(record) + "\n")
            if evaluations and step % 20 == 0:
                metrics = {"exact_accuracy": 0.4, "exact_accuracy_ci95": [0.3, 0.5]}
                log.write(json.dumps({"step": step, "eval": metrics}) + "\n")
    return path


def test_every_plot_is_a_picture(tmp_path: Path) -> None:
    written = write_plots(tmp_path / "plots", {"test": METRICS}, log_file(tmp_path))
    names = ["learning_curve.png", "test_accuracy_by_step.png", "test_halting.png"]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == sorted(names)
    for path in written:
        rows = pixels(path)
        assert rows.shape[0] > 400
        assert rows.shape[1] > 4 * 700
        assert len(np.unique(rows)) > 50


def test_pictures_follow_the_data(tmp_path: Path) -> None:
    other = copy.deepcopy(METRICS)
    other["by_step"][3] = 0.9
    other["halting_histogram"][0], other["never_halted"] = 90, 0
    for draw in (accuracy_by_step, halting_histogram):
        first, same, changed = (
            draw(metrics, tmp_path / f"{number}.png").read_bytes()
            for number, metrics in enumerate((METRICS, METRICS, other))
        )
        assert first == same
        assert first != changed


@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_learning_curve_of_any_length(tmp_path: Path, steps: int) -> None:
    pixels(learning_curve(log_file(tmp_path, steps, evaluations=steps > 1), tmp_path / "curve.png"))


def test_curves_of_one_step_one_source_and_of_many(tmp_path: Path) -> None:
    one = METRICS | {"by_step": [0.0], "by_source": {"all": {"count": 200, "by_step": [0.0]}}, "halting_histogram": [0]}
    sources = {f"source {number}": {"count": number, "by_step": [0.5] * 64} for number in range(1, 12)}
    many = METRICS | {"by_step": [0.5] * 64, "by_source": sources, "halting_histogram": [2] * 64}
    for number, metrics in enumerate((one, many)):
        pixels(accuracy_by_step(metrics, tmp_path / f"accuracy{number}.png"))
        pixels(halting_histogram(metrics, tmp_path / f"halting{number}.png"))


def test_early_exit_leaves_no_accuracy_curve(tmp_path: Path) -> None:
    early = {name: value for name, value in METRICS.items() if name != "by_step"}
    assert [path.name for path in write_plots(tmp_path, {"test": early})] == ["test_halting.png"]
    with pytest.raises(ValueError, match="no 'by_step': evaluate with halt=False"):
        accuracy_by_step(early, tmp_path / "accuracy.png")


def test_log_without_a_step(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 3, "eval": {}}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="holds no training step"):
        learning_curve(log, tmp_path / "curve.png")
    assert not (tmp_path / "curve.png").exists()


def lines_of(monkeypatch: pytest.MonkeyPatch, module: Any, draw: Any) -> tuple[Figure, list[Any]]:
    """The figure that `draw` would write, and the lines of its axes."""
    kept: list[Figure] = []
    monkeypatch.setattr(module, "save_figure", lambda figure, output: kept.append(figure) or Path(output))
    draw()
    return kept[0], [line for axes in kept[0].axes for line in axes.get_lines()]


def test_a_line_at_zero_stands_above_the_axis_and_sources_are_in_words(monkeypatch) -> None:
    sources = {
        "gen_vicinity_hard": METRICS["by_source"]["hard"] | {"by_step": [0.0] * 4},
        "mine": {**METRICS, "count": 9},
    }
    figure, _ = lines_of(
        monkeypatch, plots, lambda: accuracy_by_step(METRICS | {"by_source": sources}, "unwritten.png")
    )
    (axes,) = figure.axes
    assert axes.get_ylim()[0] < 0
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == [
        "gen_vicinity_hard:\nneighbours of the hardest known puzzles (80)", "mine (9)", "all (200)",
    ]  # fmt: skip


@pytest.mark.parametrize(("steps", "dots"), [(1, True), (20, True), (1000, False)])
def test_a_short_learning_curve_is_dots(tmp_path: Path, monkeypatch, steps: int, dots: bool) -> None:
    log = log_file(tmp_path, steps, evaluations=False)
    _, lines = lines_of(monkeypatch, plots, lambda: learning_curve(log, "unwritten.png"))
    assert lines[0].get_marker() == ("o" if dots else "None")


def test_equal_curves_of_a_sweep_can_be_told_apart(monkeypatch) -> None:
    rows = [
        {"selection": selection, "steps": 4, "steps_a_puzzle": x, "exact_accuracy": 0.5, "ci95": [0.4, 0.6]}
        for selection in (*SELECTIONS, ANY, PLAIN)
        for x in (4, 8)
    ]
    _, lines = lines_of(monkeypatch, sweep_plots, lambda: plot_sweep(rows, "unwritten.png", "title", "noise"))
    assert len({line.get_marker() for line in lines}) == len(lines) == 6
    widths = [line.get_linewidth() for line in lines]
    assert widths == sorted(widths, reverse=True) and len(set(widths)) == 6 and widths[-1] > 1
