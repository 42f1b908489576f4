"""scripts/publish.py as a user runs it: a process of its own, its exit code and what it prints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_trm.metrics.pass_at_k import ranking
from scripts import publish

SCRIPT = Path(publish.__file__)
METRIC = Path(ranking.__file__).parent
# The metric is small and complete; nothing listens on this port, and no token is anywhere.
COMMAND = [sys.executable, str(SCRIPT), str(METRIC), "org/pass_at_k"]

HELP = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as stopped:
    assert not stopped.code and "torch" not in sys.modules and "huggingface_hub" not in sys.modules
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


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def test_help_shows_an_example_and_imports_nothing_heavy(environment: dict[str, str]) -> None:
    done = run([sys.executable, "-c", HELP, str(SCRIPT)], environment)
    assert done.returncode == 0, done.stderr
    assert "trm publish runs/quickstart/model org/" in done.stdout


@pytest.mark.slow
def test_no_token_is_one_line_and_exit_code_2(environment: dict[str, str]) -> None:
    done = run(COMMAND, environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no token was found; log in with `hf auth login`, or set HF_TOKEN\n"


@pytest.mark.slow
def test_no_network_is_one_line_and_exit_code_2(environment: dict[str, str]) -> None:
    done = run(COMMAND, environment | {"HF_TOKEN": "hf_secretOfTheTests"})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: reading org/pass_at_k: no answer from http://127.0.0.1:9 (ConnectError")
    assert "hf_secretOfTheTests" not in done.stdout + done.stderr


@pytest.mark.slow
def test_dry_run_without_network_lists_the_files(environment: dict[str, str]) -> None:
    done = run([*COMMAND, "--dry-run"], environment)
    assert done.returncode == 0, done.stderr
    files = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("  goes")]
    assert files == ["README.md", "index.html", "pass_at_k.py", "ranking.py", "requirements.txt"]
    assert done.stderr.startswith("note: the Hub was not asked: ")
