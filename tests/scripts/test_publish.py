"""scripts/publish.py as a user runs it: a process of its own, its exit code and what it prints."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts import publish

SCRIPT = Path(publish.__file__)
# A process that imports none of the first argument's modules.
LIGHT = """
import runpy, sys
absent, *sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as stopped:
    assert not set(absent.split()) & sys.modules.keys()
    raise
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    return kept | {
        "PYTHONPATH": str(SCRIPT.parents[1]),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Of a small data set; nothing listens on the environment's port, and no token is anywhere."""
    folder = tmp_path / "puzzles"
    folder.mkdir()
    pq.write_table(pa.table({"question": ["1."], "answer": ["12"]}), folder / "train.parquet")
    files = "configs:\n- config_name: default\n  data_files: train.parquet\n"
    (folder / "README.md").write_text(f'---\nlicense: mit\n{files}---\nload_dataset("THIS_FOLDER_OR_REPOSITORY")\n')
    return [sys.executable, "-c", LIGHT, "torch transformers", str(SCRIPT), str(folder), "org/puzzles"]


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def test_help_shows_an_example_and_imports_nothing_heavy(environment: dict[str, str]) -> None:
    done = run([sys.executable, "-c", LIGHT, "torch huggingface_hub", str(SCRIPT), "--help"], environment)
    assert done.returncode == 0, done.stderr
    assert "trm publish runs/quickstart/model org/" in done.stdout


def test_no_token_is_one_line_and_exit_code_2(command: list[str], environment: dict[str, str]) -> None:
    done = run(command, environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no token was found; log in with `hf auth login`, or set HF_TOKEN\n"


def test_no_network_is_one_line_and_exit_code_2(command: list[str], environment: dict[str, str]) -> None:
    done = run(command, environment | {"HF_TOKEN": "hf_secretOfTheTests"})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: reading org/puzzles: no answer from http://127.0.0.1:9 (ConnectError")
    assert "hf_secretOfTheTests" not in done.stdout + done.stderr


def test_dry_run_without_network_lists_the_files(command: list[str], environment: dict[str, str]) -> None:
    done = run([*command, "--dry-run"], environment)
    assert done.returncode == 0, done.stderr
    files = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("  goes")]
    assert files == ["README.md", "train.parquet"]
    assert done.stderr.startswith("note: the Hub was not asked: ")
