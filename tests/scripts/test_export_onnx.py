"""The exporting scripts: the folder that export_onnx.py writes, solve_onnx.py with numpy and onnxruntime alone."""

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_trm import GridProcessor, ReasoningConfig, TRMForGridReasoning
from modeling_trm.commands import export, solve
from modeling_trm.exporting import checking, solve_onnx
from modeling_trm.puzzle_index_trm import PuzzleIndex

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "model_cards" / "tr-mamba2mlpt-sudoku-quickstart"
PUZZLES = ROOT / "scripts" / "recipes" / "quickstart_puzzles.txt"  # held out from that checkpoint's training
FILES = {
    "step.onnx",
    "initial_state.npz",
    "export.json",
    "preprocessor_config.json",
    "processing_trm.py",
    "grid_text_trm.py",
    "manifest.json",
}
# Runs a script as `python SCRIPT`, in a process that cannot import these packages.
BLOCKED = """
import runpy, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "modeling_trm", "datasets_builders"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
try:
    import torch
except ImportError:
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


Done = subprocess.CompletedProcess[str]


def solve_alone(folder: Path, *arguments: str, stdin: str = "") -> Done:
    command = [sys.executable, "-I", "-c", BLOCKED, solve_onnx.__file__, "--export", str(folder), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, cwd=folder)


@pytest.fixture
def solve_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """solve_alone in this process, which has imported what takes a second: for what is refused or said."""

    def run(folder: Path, *arguments: str, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        command = ["--export", str(folder), *arguments]
        code = solve_onnx.main(command)
        return subprocess.CompletedProcess(command, code, *capsys.readouterr())

    return run


def save(model: TRMForGridReasoning, processor: GridProcessor, folder: Path) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def halting_at_different_steps(model: TRMForGridReasoning, input_ids: torch.Tensor) -> None:
    """Give the model a threshold in the widest gap between what it says, so that some puzzles stop, others go on."""
    model.reasoning_config = ReasoningConfig(max_steps=6, halt=0.7)
    with torch.no_grad():
        middle = model(input_ids).halt_logits.sort().values[len(input_ids) // 4 : -len(input_ids) // 4]
        gap = middle.diff().argmax()
        model.q_head.bias[0] += model.reasoning_config.halt_logit - middle[gap : gap + 2].mean()


def random_sudoku(count: int) -> list[str]:
    """4x4 grids, every other cell blank; clues of one solved grid under relabellings."""
    random = np.random.RandomState(3)
    grids = []
    for _ in range(count):
        digits = random.permutation(list("1234"))
        cells = [digits[int(c) - 1] for c in "1234341221434321"]
        grids.append("".join("." if random.rand() < 0.5 else c for c in cells))
    return grids


@pytest.mark.slow
def test_the_same_answers_as_solve_without_pytorch(tiny_model, tmp_path: Path, capsys, solve_here) -> None:
    processor, puzzles = GridProcessor("sudoku", grid_shape=(4, 4)), random_sudoku(70)  # more than one batch
    # Attention, because it does not multiply rounding errors from step to step, as other random weights do.
    model = tiny_model("trm-attn", block_operators=["attention", "mlp"], num_puzzles=1, blank_token_id=1).eval()
    input_ids = processor(puzzles).input_ids
    halting_at_different_steps(model, input_ids)
    checkpoint, folder = save(model, processor, tmp_path / "model"), tmp_path / "export"
    assert export.main(["--model", str(checkpoint), "--output", str(folder)]) == 0
    shown = capsys.readouterr()
    assert f"{folder / 'step.onnx'}: " in shown.out
    assert shown.err == ""
    assert {path.name for path in folder.iterdir()} == FILES
    facts = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert facts["difference_to_pytorch"]["one_step"] < checking.TOLERANCE
    assert (facts["characters"], facts["blank_token_id"]) == (".1234", 1)
    assert (facts["max_steps"], facts["halt"]) == (6, 0.7)  # the checkpoint's own
    with np.load(folder / "initial_state.npz") as initial:
        assert np.array_equal(initial["z_H"], model.model.H_init.numpy())
        assert np.array_equal(initial["z_L"], model.model.L_init.numpy())

    assert solve.main(["--model", str(checkpoint), *puzzles[:2]]) == 0
    told = [re.sub("^(NOT a valid solution): .*", r"\1", line) for line in capsys.readouterr().out.splitlines()]
    names = ["puzzle 1", "puzzle 2"]
    assert solve_alone(folder, *puzzles[:2]).stdout.splitlines() == [line for line in told if line not in names]
    expected = model.solve(input_ids)
    assert len(set(expected.steps.tolist())) > 1, "every puzzle stops at one step: nothing is compacted"
    done = solve_alone(folder, "-", "--json", stdin="\n".join(puzzles))
    assert (done.returncode, done.stderr) == (0, "")
    results = json.loads(done.stdout)
    assert [result["puzzle"] for result in results] == puzzles
    answers = ["".join("?.1234"[token] for token in row) for row in expected.answers.tolist()]
    assert [result["answer"] for result in results] == answers
    assert [result["steps"] for result in results] == expected.steps.tolist()
    found = torch.tensor([result["halt_probability"] for result in results])
    torch.testing.assert_close(found, expected.halt_probability, rtol=0, atol=1e-4)

    assert_bad_puzzles_are_named(folder, solve_here)
    assert_bad_folders_are_refused(folder, tmp_path, solve_here)


def assert_bad_puzzles_are_named(folder: Path, solve_here: Callable[..., Done]) -> None:
    done = solve_here(folder, "11..............", "1234........", "12 34|1x..|....|....", "0" * 16, "--max-steps", "1")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: puzzle 1: '1' is given twice in row 1",
        "error: puzzle 2: 12 cells, expected 16 (4 x 4)",
        "error: puzzle 3: row 2, column 2: 'x' is not allowed; allowed: '.1234'",
    ]
    assert "1 supervision step, halt probability 0." in done.stdout
    assert solve_here(folder, "-", stdin="\n").stderr == "error: no puzzle was given\n"
    rows = solve_here(
        folder, "-", "--json", stdin="12 | 34\n34 | 12\n---+---\n21 | 43\n43 | 21\n\n1...\n....\n....\n....\n"
    )
    assert rows.returncode == 0
    assert [result["puzzle"] for result in json.loads(rows.stdout)] == ["1234341221434321", "1" + "." * 15]
    full = solve_here(folder, "1234341221434321")
    assert full.stdout.startswith(GridProcessor("sudoku", grid_shape=(4, 4)).render("1234341221434321") + "\n")
    assert "\na valid solution\n" in full.stdout


def assert_bad_folders_are_refused(folder: Path, tmp_path: Path, solve_here: Callable[..., Done]) -> None:
    done = solve_here(tmp_path, "1" * 16)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "holds no export.json" in done.stderr
    for name, message in (("step.onnx", "onnxruntime cannot load it"), ("export.json", "is damaged")):
        broken = tmp_path / f"broken {name}"
        shutil.copytree(folder, broken)
        (broken / name).write_bytes((broken / name).read_bytes()[:100])
        done = solve_here(broken, "1" * 16)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert message in done.stderr
        assert name in done.stderr

    for name, value in (("latent_shape", [1, 32]), ("grid_shape", [9, 9]), ("num_latents", 1)):
        broken = tmp_path / f"broken {name}"
        shutil.copytree(folder, broken)
        facts = json.loads((folder / "export.json").read_text(encoding="utf-8")) | {name: value}
        (broken / "export.json").write_text(json.dumps(facts), encoding="utf-8")
        done = solve_here(broken, "1" * 16)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "which is not what export.json says" in done.stderr


@pytest.mark.slow
def test_a_trained_checkpoint_solves_held_out_sudoku_with_onnxruntime_alone(tmp_path: Path) -> None:
    assert export.main(["--model", str(CHECKPOINT), "--output", str(tmp_path / "export")]) == 0
    puzzles = PUZZLES.read_text(encoding="utf-8").split()[:2]
    done = solve_alone(tmp_path / "export", *puzzles, "--max-steps", "32", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    for puzzle, result in zip(puzzles, json.loads(done.stdout), strict=True):
        answer = result["answer"]
        assert all(given in (".", cell) for given, cell in zip(puzzle, answer, strict=True))
        for unit in sudoku_units(answer):
            assert sorted(unit) == list("123456789")
        assert result["halt_probability"] > 0.3  # the second is solved before the model is sure


def sudoku_units(grid: str) -> list[list[str]]:
    rows = [list(grid[9 * r : 9 * r + 9]) for r in range(9)]
    columns = [list(column) for column in zip(*rows, strict=True)]
    boxes = [[rows[3 * (b // 3) + i][3 * (b % 3) + j] for i in range(3) for j in range(3)] for b in range(9)]
    return rows + columns + boxes


@pytest.mark.slow
def test_arc_takes_the_rows_asked_for_along(tiny_model, tmp_path: Path, refused, solve_here) -> None:
    model = tiny_model("trm-attn", block_operators=["attention", "mlp"], vocab_size=12, num_puzzles=4).eval()
    augmentations = np.array([[0, *range(10)], [3, *range(10)], [0, *range(10)], [5, *range(10)]], dtype=np.uint8)
    model.set_puzzle_index(PuzzleIndex(("evaluation/aa", "evaluation/bb"), np.array([-1, 0, 1, 1]), augmentations))
    model.reasoning_config = ReasoningConfig(halt=True)
    checkpoint = save(model, GridProcessor("arc", grid_shape=(4, 4)), tmp_path / "model")
    folder = tmp_path / "export"
    arguments = ["--model", str(checkpoint), "--output", str(folder)]

    error = refused(export.main, [*arguments, "--puzzle-tasks", "evaluation/ba"])
    assert error.startswith("error: ")
    assert "'evaluation/ba'" in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]

    assert export.main([*arguments, "--puzzle-tasks", "evaluation/bb"]) == 0
    assert json.loads((folder / "export.json").read_text(encoding="utf-8"))["halt"] == 0.5
    with np.load(folder / "puzzle_index.npz") as index:
        assert index["tasks"].tolist() == ["evaluation/bb"]
        assert index["task_of_row"].tolist() == [-1, 0, 0]
        assert np.array_equal(index["augmentation_of_row"], augmentations[[0, 2, 3]])
    input_ids = torch.randint(12, (3, 16))
    state = model.initial_state(3).map(torch.Tensor.contiguous)
    run = checking.onnx_runner(folder / "step.onnx")
    with torch.no_grad():
        expected = model(input_ids, puzzle_ids=torch.tensor([0, 2, 3])).logits
    torch.testing.assert_close(
        run([input_ids, torch.arange(3), state.z_H, state.z_L])[0], expected, rtol=1e-4, atol=1e-4
    )
    done = solve_here(folder, "0")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "for task 'arc'" in done.stderr


@pytest.mark.slow
def test_a_torch_program_of_a_bfloat16_checkpoint(tiny_model, tmp_path: Path, solve_here) -> None:
    model = tiny_model("trm-attn", block_operators=["mlp_t"], num_puzzles=1).bfloat16()
    checkpoint = save(model, GridProcessor("grid", grid_shape=(4, 4), alphabet="abcde"), tmp_path / "model")
    folder = tmp_path / "export"
    assert export.main(["--model", str(checkpoint), "--output", str(folder), "--format", "torch"]) == 0
    assert {path.name for path in folder.iterdir()} == {"step.pt2", *FILES} - {"step.onnx"}
    facts = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert (facts["max_steps"], facts["halt"]) == (model.config.halt_max_steps, None)  # it says nothing of its own
    model = model.float()
    input_ids = torch.randint(6, (5, 16))
    run = checking.program_runner(folder / "step.pt2")
    state = model.initial_state(5).map(torch.Tensor.contiguous)
    with torch.no_grad():
        expected = model(input_ids).logits
    torch.testing.assert_close(run([input_ids, torch.zeros(5, dtype=torch.long), state.z_H, state.z_L])[0], expected)
    done = solve_here(folder, "a" * 16)
    assert done.returncode == 2
    assert "is an export of format 'torch'" in done.stderr


@pytest.mark.slow
def test_nothing_is_written_over_tolerance_or_over_a_folder(tiny_model, tmp_path: Path, monkeypatch, refused) -> None:
    model = tiny_model("trm-attn", block_operators=["mlp"], num_puzzles=1)
    processor = GridProcessor("sudoku", grid_shape=(4, 4))
    checkpoint = save(model, processor, tmp_path / "model")
    arguments = ["--model", str(checkpoint), "--output", str(tmp_path / "export")]
    monkeypatch.setattr(checking, "TOLERANCE", 1e-12)
    monkeypatch.setattr(checking, "ROUNDING_FACTOR", 0)
    assert "error: the exported step differs from PyTorch's by" in refused(export.main, arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    monkeypatch.undo()

    assert "which is read; give another output" in refused(export.main, [*arguments[:3], str(checkpoint)])
    assert "no such folder" in refused(export.main, ["--model", str(tmp_path / "nobody"), *arguments[2:]])
    assert [path.name for path in tmp_path.iterdir()] == ["model"]

    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "old").touch()
    assert "is not replaced" in refused(export.main, [*arguments, "--overwrite"])  # somebody else's
    (tmp_path / "export" / "old").unlink()
    for overwrite in ([], ["--overwrite"]):  # the second is over what the first has made
        assert export.main([*arguments, *overwrite]) == 0
    assert {path.name for path in (tmp_path / "export").iterdir()} == FILES
