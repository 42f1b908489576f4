"""The README's commands: what they name exists, and `make quickstart` does its whole job (here in a few steps)."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from scripts import solve, train

ROOT = Path(train.__file__).parents[1]


def quickstart_commands(tmp_path: Path) -> list[list[str]]:
    """The commands behind `make quickstart`, as make prints them, without the set-up of the environment."""
    environment = tmp_path / "venv"
    environment.mkdir()
    (environment / ".complete").touch()
    make = ["make", "--dry-run", "--no-print-directory", "quickstart", f"VENV={environment}"]
    printed = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = printed.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if "/trm " in line]


@pytest.mark.slow
def test_quickstart_trains_evaluates_publishes_and_solves(tmp_path, monkeypatch, capsys):
    training, solving = quickstart_commands(tmp_path)
    assert training[1] == "train" and solving[1] == "solve"
    monkeypatch.chdir(ROOT)
    output = tmp_path / "run"
    few = "--train_steps 4 --eval_every 4 --log_every 2 --validation_puzzles 8 --test_puzzles 9 --eval_max_steps 2"
    assert train.main([*training[2:], *few.split(), "--compile", "no", "--output_dir", str(output)]) == 0
    for name in ("README.md", "config.json", "model.safetensors", "preprocessor_config.json", "modeling_trm.py"):
        assert (output / "model" / name).stat().st_size > 0
    assert len(list((output / "model" / "plots").glob("*.png"))) == 3
    assert any((output / "trackers").rglob("events.out.tfevents.*"))  # the default tracker has written
    answers = [part.replace("runs/quickstart/model", str(output / "model")) for part in solving[2:]]
    assert solve.main(answers) == 0
    printed = capsys.readouterr().out
    assert printed.count("step 1") >= 3  # three puzzles, each step shown


def test_every_file_and_target_that_the_readme_names_exists():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    folders = "scripts|datasets_builders|modeling_trm|model_cards|tests"
    named = set(re.findall(rf"(?:{folders})/[\w./-]+\.(?:py|yaml|md|txt)", readme))
    assert len(named) > 10
    missing = {name for name in named if not (ROOT / name).exists()}
    assert not missing
    targets = set(re.findall(r"\bmake ([a-z]+)", readme))
    assert {"quickstart", "test"} <= targets
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)


def test_every_command_that_builds_arc_says_what_to_do_about_leaks():
    """ARC-AGI-1 itself has two: without --on-leak the commands would end in an error."""
    texts = [path for top in ("scripts", "datasets_builders", "modeling_trm") for path in (ROOT / top).rglob("*.*")]
    texts = [ROOT / "README.md", *(path for path in texts if path.suffix in {".py", ".md", ".yaml"})]
    commands = []
    for path in texts:
        joined = re.sub(r"\\\n(#\s*)?", " ", path.read_text(encoding="utf-8"))
        commands += re.findall(r"(?:build_datasets\.py|trm build-data) arc (--[^\n]*)", joined)
    assert len(commands) >= 8
    assert all("--on-leak" in command for command in commands), commands
