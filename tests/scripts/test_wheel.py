"""The wheel holds everything that a user needs: built, unpacked, and used from another folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from modeling_trm.commands import trm
from modeling_trm.training.recipes import shipped_names

ROOT = Path(trm.__file__).parents[2]
PUZZLE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
SOURCES = ("modeling_trm", "datasets_builders", "model_cards", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, built from a copy, so that no build folder is left in the checkout."""
    pytest.importorskip("setuptools")
    top = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, top / "source" / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, top / "source" / name)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    subprocess.run([*build, "--wheel-dir", str(top), str(top / "source")], check=True, capture_output=True, text=True)
    (wheel,) = top.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(top / "unpacked")
    return top / "unpacked"


def use(unpacked: Path, folder: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(unpacked)}
    command = [sys.executable, "-P", "-m", "modeling_trm.commands", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_packages_and_entry_point(unpacked: Path) -> None:
    metadata, *more = unpacked.glob("*.dist-info")
    assert not more
    assert {path.name for path in unpacked.iterdir()} - {metadata.name} == {
        "modeling_trm", "datasets_builders", "model_cards",
    }  # fmt: skip
    assert "trm = modeling_trm.commands.trm:main" in (metadata / "entry_points.txt").read_text(encoding="utf-8")
    rooms = {path.relative_to(ROOT) for top in SOURCES[:2] for path in (ROOT / top).rglob("*.py")}
    assert {path for path in rooms if not (unpacked / path).is_file()} == set()
    assert (unpacked / "model_cards" / "TEMPLATE.md").is_file()
    assert (unpacked / "model_cards" / "tr-mamba2mlpt-sudoku-quickstart" / "model.safetensors").is_file()


@pytest.mark.slow
def test_it_is_used_from_another_folder(unpacked: Path, tmp_path: Path) -> None:
    assert "  evaluate  " in use(unpacked, tmp_path, "--help")
    assert [line.split()[0] for line in use(unpacked, tmp_path, "recipes").splitlines()] == shipped_names()
    few = "--train_steps 2 --eval_every 2 --validation_puzzles 4 --test_puzzles 4 --eval_max_steps 1 --batch_size 4"
    use(unpacked, tmp_path, "train", "quickstart", *few.split(), "--compile", "no", "--report_to", "none")
    model = tmp_path / "runs" / "quickstart" / "model"
    assert (model / "README.md").is_file()  # the card's template came along
    assert "supervision step" in use(unpacked, tmp_path, "solve", "--model", str(model), PUZZLE)
    use(unpacked, tmp_path, "evaluate", "--model", str(model), "--max-puzzles", "2", "--output", "evaluation")
    assert (tmp_path / "evaluation" / "metrics.json").is_file()
    assert "--solutions" in use(unpacked, tmp_path, "adapt", "--help")
