"""Every command and every Python block of README.md and docs/ runs as it stands there; see blocks.py for the sizes."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from modeling_trm import OPERATORS
from modeling_trm.benchmarking import peak
from tests.docs.blocks import PAGES, REASONS, ROOT, read_blocks, run_page, with_sizes

WITH_CODE = [page for page in PAGES if any(block.language in ("bash", "python") for block in read_blocks(page))]
MOST_NOT_RUN = 1 / 3  # of all blocks


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """In a folder with the checkpoints of a clone; modules and operators of the page's own are gone afterwards."""
    (tmp_path / "model_cards").symlink_to(ROOT / "model_cards")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(peak.SIZES, "cpu", 64)
    operators = dict(OPERATORS)
    yield
    for name in ("my_ops", "modeling_trm.my_ops_trm"):
        sys.modules.pop(name, None)
    OPERATORS.clear()
    OPERATORS.update(operators)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_the_page_runs(page):
    runnable = [block for block in read_blocks(page) if block.language in ("bash", "python")]
    left_out = [block for block in runnable if block.noted("not run") or block.noted("file")]
    assert run_page(page) == len(runnable) - len(left_out)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("name", ["solve", "train_own_csv", "own_operator"])
def test_the_example_runs(name, capsys):
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    last = {"solve": "3 4 5 | 2 8 6 | 1 7 9", "train_own_csv": "answer after", "own_operator": "20 "}[name]
    assert last in capsys.readouterr().out


def test_what_is_not_run_says_why_and_is_little():
    blocks = [block for page in PAGES for block in read_blocks(page) if block.language in ("bash", "python")]
    not_run = [block for block in blocks if block.noted("not run")]
    for block in not_run:
        (reason,) = block.noted("not run")
        assert reason in REASONS, f"{block.where}: {reason!r} is none of {REASONS}"
    assert len(not_run) <= MOST_NOT_RUN * len(blocks), [block.where for block in not_run]


def test_blocks_name_a_language():
    """Else a command could hide in a block that nothing runs."""
    for page in PAGES:
        for block in read_blocks(page):
            assert block.language, f"{block.where}: ```bash, ```python, ```text, ..."
        if page.suffix == ".ipynb":
            continue
        fences = len(re.findall(r"^ *```", page.read_text(encoding="utf-8"), re.MULTILINE))
        assert fences == 2 * len(read_blocks(page)), f"{name_of(page)}: a fence that is not seen"


def test_sizes_stand_behind_the_readers_options():
    assert with_sizes(["solve", "--max-steps", "9"], [])[-2:] == ["--max-steps", "2"]
    assert with_sizes(["train", "mine.yaml"], ["train --train_steps 5"]) == ["train", "mine.yaml", "--train_steps", "5"]
    assert with_sizes(["vote", "report", "records"], []) == ["vote", "report", "records"]
    assert "--num-augmentations" in with_sizes(["build-data", "arc"], [])
    assert with_sizes(["doctor"], []) == ["doctor"]
