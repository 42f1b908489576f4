"""The code blocks of the pages, and how a test runs those of a page, one after the other as a reader would.

A block of bash is run line by line, `trm` in this process, with the options of SIZES behind the reader's own; a block
of Python shares its names with the others of its page. An HTML comment before a block says what is different:

    <!-- not run: needs a GPU -->                     one of REASONS
    <!-- run with: train --train_steps 4 -->          these options instead of those of SIZES
    <!-- file: my.csv -->                             the block is the content of this file, whatever its language

Notebooks of examples/ are read alike: a cell that begins with ! is bash, and its metadata are the comments.
"""

import json
import re
import runpy
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling_trm.commands import trm

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "examples/*.ipynb", "datasets_builders/**/*.md", "model_cards/README.md")
    for page in ROOT.glob(pattern)
    if page.name != "CHANGELOG.md"
)
REASONS = (
    "needs a GPU",
    "needs the Hub",
    "needs the network",
    "needs files of yours",
    "installs packages",
    "starts processes, tests/training/test_processes.py does",
    "starts processes, tests/training/test_launching.py does",
    "starts processes, a test of its own does",
    "part of a class, a test of its own builds it",
    "takes long, its parts have tests of their own",
)
_TRAINING = (
    "--train_steps 2 --eval_every 2 --log_every 1 --batch_size 4 --H_cycles 1 --L_cycles 2 "
    "--halt_max_steps 2 --supervision_curriculum null --eval_max_steps 2 --compile no --mixed_precision no "
    "--report_to none --cpu"
)
_RECIPES = (
    "batch_size=2 hidden_size=48 halt_max_steps=2 supervision_curriculum=null validation_puzzles=2 test_puzzles=3 "
    "eval_every=99 warmup_steps=1 compile=no mixed_precision=no report_to=none cpu=true"
).split()
# What a test adds to each command, so that it takes a second: what is read, computed and written stays the same.
SIZES = {
    "train": f"{_TRAINING} --hidden_size 96 --validation_puzzles 2 --test_puzzles 3",
    "adapt": f"{_TRAINING} --hidden_size 48 --max-tasks 2 --num-augmentations 1",
    "solve": "--max-steps 2",
    "evaluate": "--max-puzzles 3 --max-steps 2",
    "vote": "--max-puzzles 2 --max-steps 2",
    "compare": "--max-puzzles 3 --max-steps 2",
    "sweep": "--max-puzzles 3 --steps 1 2",
    "certify": "--max-puzzles 3 --max-steps 2",
    "diagnose": "--max-puzzles 3 --max-steps 2",
    "compare-recipes": "--flops 2e8 " + " ".join(f"--set {one}" for one in _RECIPES),
    "loop-experiment": "--arms bare --seeds 0 --steps 2 --loops 2 --train-loops 1 --batch-size 2 --test-puzzles 4",
    "build-data arc": "--max-tasks 3 --num-augmentations 2 --max-grid-size 10 --validation-tasks 1",
    "benchmark": "--part puzzle-table --rounds 1 --rows 10 --table-batch 4",
}
_BLOCK = re.compile(r"((?:^<!--.*?-->\n+)*)^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!-- (not run|run with|file): (.*?) -->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: the page, the line of its first line, and what the comments before it say, by their keys."""

    page: Path
    line: int
    language: str
    text: str
    notes: tuple[tuple[str, str], ...]

    def noted(self, key: str) -> list[str]:
        return [value for name, value in self.notes if name == key]

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"

    def commands(self) -> list[list[str]]:
        """The words of every command of a block of bash."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        return [read_cell(page, *numbered) for numbered in enumerate(json.loads(text)["cells"], start=1)]
    blocks = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start(3)) + 1
        notes = tuple(_COMMENT.findall(match[1]))
        blocks.append(Block(page, line, match[2], match[3], notes))
    return blocks


def read_cell(page: Path, number: int, cell: dict[str, Any]) -> Block:
    """A cell of a notebook; its "line" is its number."""
    text = "".join(cell["source"])
    if cell["cell_type"] != "code":
        return Block(page, number, cell["cell_type"], text, ())
    language = "bash" if text.startswith("!") else "python"
    return Block(page, number, language, text.removeprefix("!"), tuple(cell["metadata"].items()))


def run_page(page: Path) -> int:
    """Run the blocks of a page in the current folder; how many have run."""
    names: dict[str, object] = {"__name__": "page"}
    count = 0
    for block in read_blocks(page):
        for name in block.noted("file"):
            Path(name).write_text(block.text, encoding="utf-8")
        if block.noted("file") or block.noted("not run") or block.language not in ("bash", "python"):
            continue
        count += 1
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
        else:
            for words in block.commands():
                run_command(block, words)
    return count


def run_command(block: Block, words: list[str]) -> None:
    """One line of bash. Raises AssertionError where it fails or is none that a page may have."""
    program, *rest = words
    if program == "trm":
        code = trm.main(with_sizes(rest, block.noted("run with")))
        assert code == 0, f"{block.where}: {shlex.join(words)} ends with {code}"
    elif program == "python" and rest and rest[0].endswith(".py"):
        runpy.run_path(rest[0], run_name="__main__")
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{rest[0]}:", makefile, re.MULTILINE), f"{block.where}: make has no target {rest[0]}"
    else:
        raise AssertionError(f"{block.where}: {program!r} is not run by the test; say why in a comment: not run")


def with_sizes(arguments: list[str], instead: list[str]) -> list[str]:
    """The arguments of `trm`, with the options behind them that make it quick."""
    for name in (" ".join(arguments[:2]), *arguments[:1]):
        own = [text.removeprefix(name) for text in instead if text.split()[: len(name.split())] == name.split()]
        if own:
            return arguments + shlex.split(own[0])
        if name in SIZES and "report" not in arguments[1:2]:
            return arguments + shlex.split(SIZES[name])
    return arguments
