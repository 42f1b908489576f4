"""scripts/compare.py end to end on the shipped checkpoint and a tiny one, and its errors."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from modeling_trm import GridProcessor, TRMForGridReasoning
from modeling_trm.commands.compare import default_names
from scripts import compare
from tests.conftest import IMAGE


@pytest.fixture
def tiny(tiny_model: Callable[..., TRMForGridReasoning], tmp_path: Path) -> Callable[..., str]:
    """tiny(name, task, grid_shape, vocab_size): the folder of an untrained checkpoint."""

    def make(name: str, task: str = "sudoku", shape: tuple[int, int] = (9, 9), vocab_size: int = 11) -> str:
        folder = tmp_path / name
        model = tiny_model("trm-attn", vocab_size=vocab_size, seq_len=shape[0] * shape[1])
        model.save_pretrained(folder)
        GridProcessor(task, grid_shape=shape).save_pretrained(folder)
        return str(folder)

    return make


def test_writes_tables_and_plots(tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    options = ["--task", "sudoku", "--max-puzzles", "6", "--max-steps", "2", "--votes", "2", "--output", str(output)]
    assert compare.main(["--models", str(IMAGE), tiny("attention"), *options]) == 0
    report = json.loads((output / "comparison.json").read_text())
    names = [IMAGE.name, "attention"]
    assert list(report["models"]) == names == report["pairs"][0]["names"] and report["count"] == 6
    assert report["command"].startswith("trm compare --models")
    assert {"hardware", "versions", "dataset", "fingerprint", "precision", "checkpoints"} <= report.keys()
    assert all(figures["steps"] == 2 and figures["votes"]["views"] == 2 for figures in report["models"].values())
    assert {path.name for path in (output / "plots").iterdir()} == {
        "accuracy_by_step.png", "agreement.png", "solved_only_by.png", "pass_at_k.png"
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert (output / "comparison.md").read_text() in printed and "comparison.json" in printed


@pytest.mark.parametrize(
    ("models", "arguments", "message"),
    [
        ([], [], "--models needs two or more checkpoints"),
        ([str(IMAGE)], [], "two models are called"),
        (["elsewhere"], ["--names", "a"], "--names holds 1 names for 2 models"),
        (["elsewhere"], ["--names", "a", "a"], "two models are called 'a'"),
        (["elsewhere"], [], "checkpoint 'elsewhere': no such folder"),
        (["elsewhere"], ["--votes", "0"], "--views must be at least 1, got 0"),
        (["elsewhere"], ["--data", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_errors_are_one_line(models: list[str], arguments: list[str], message: str, tmp_path: Path, refused) -> None:
    run = ["--models", str(IMAGE), *models, "--task", "sudoku", "--output", str(tmp_path / "out"), *arguments]
    assert message in refused(compare.main, run).splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("task", "shape", "vocab_size", "message"),
    [
        ("maze", (9, 9), 6, "was made for task 'maze', the puzzles have 'sudoku'"),
        ("sudoku", (4, 4), 6, "was made for grid_shape"),
        ("sudoku", (9, 9), 7, "other: the model does not fit the puzzles: its config has vocab_size=7"),
    ],
)
def test_models_of_other_puzzles_are_named(
    tiny, task: str, shape: tuple[int, int], vocab_size: int, message: str, tmp_path, refused
) -> None:
    other = tiny("other", task, shape, vocab_size)
    options = ["--task", "sudoku", "--max-puzzles", "2", "--output", str(tmp_path / "out")]
    last = refused(compare.main, ["--models", str(IMAGE), other, *options]).splitlines()[-1]
    assert message in last and "other" in last
    assert not (tmp_path / "out").exists()


def test_a_model_is_called_as_its_run() -> None:
    assert default_names(["runs/attention/model", "runs/hybrid/model"]) == ["attention", "hybrid"]
    assert default_names(["a/run/model", "b/run/model"]) == ["a/run/model", "b/run/model"]
    assert default_names(["runs/mine/model", "shipped"]) == ["mine", "shipped"]
