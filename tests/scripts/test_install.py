"""`make install` in a fresh copy: an environment of its own in which `trm` runs, and nothing for developers."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("modeling_trm", "datasets_builders", "model_cards", "scripts")
FILES = ("Makefile", "pyproject.toml", "README.md", "LICENSE", "constraints.txt")


def make(folder: Path, *words: str) -> str:
    """What make says. pip asks no index: what the project depends on lies beside this interpreter."""
    outer = ("PYTEST", "VENV", "CONSTRAINTS")  # CI's environment has another name
    environment = {name: value for name, value in os.environ.items() if not name.startswith(outer)}
    environment |= {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}  # 0: no isolation
    environment |= {"PYTHONPATH": sysconfig.get_path("purelib"), "PYTHON": sys.executable}
    command = ["make", "--no-print-directory", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone")
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    for name in FILES:
        shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.mark.slow
def test_trm_runs_in_the_environment_that_make_install_builds(clone: Path) -> None:
    said = make(clone, "install")
    assert "Creating .venv with Python 3" in said and said.rstrip().endswith("Next: .venv/bin/trm solve --help")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    helped = subprocess.run(
        [clone / ".venv/bin/trm", "solve", "--help"], env=environment, capture_output=True, text=True, check=False
    )
    assert helped.stdout.startswith("usage: trm solve"), helped.stderr
    (installed,) = (clone / ".venv").glob("lib/*/site-packages/modeling_trm-*.dist-info")
    assert (installed / "direct_url.json").read_text(encoding="utf-8").count(str(clone)) == 1
    assert make(clone, "install") == "Next: .venv/bin/trm solve --help\n"  # it is there: nothing is built again
    assert "create_venv" not in make(clone, "--dry-run", "quickstart")


def test_users_get_no_tools_of_developers_and_developers_all(clone: Path, tmp_path: Path) -> None:
    def created(target: str) -> list[str]:
        lines = make(clone, "--dry-run", target, f"VENV={tmp_path / 'none'}").splitlines()
        return [line for line in lines if "create_venv.sh" in line]

    assert [line.split()[-1] for line in created("install")] == ["."]
    assert created("quickstart") == created("install")
    assert [line.split()[-1] for line in created("test")] == ["constraints.txt"]  # and so .[dev]
    assert "what=${3:-.[dev]}" in (ROOT / "scripts/create_venv.sh").read_text(encoding="utf-8")
