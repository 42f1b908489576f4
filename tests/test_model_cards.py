"""Every folder of model_cards/ is the image of a checkpoint that loads, solves, and has an up-to-date card."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets_builders.features import load_puzzles
from modeling_trm import TRMForGridReasoning
from modeling_trm.cards.card import render_card
from modeling_trm.evaluation import choose_subset
from modeling_trm.utils.shipped import shipped_checkpoints

ROOT = Path(__file__).parents[1] / "model_cards"
IMAGES = sorted(path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(("_", ".")))
MAX_BYTES = 16_000_000  # of weights in the repository


def test_there_is_one() -> None:
    assert IMAGES


@pytest.mark.parametrize("folder", IMAGES, ids=lambda path: path.name)
def test_the_card_is_what_the_template_gives(folder: Path) -> None:
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text == render_card(folder, metrics), f"stale: write_model_card({folder.name}), see model_cards/README.md"
    assert f"# {folder.name}" in text
    for link in re.findall(r"\]\((plots/[^)]+)\)", text):
        assert (folder / link).is_file(), link


@pytest.mark.parametrize("folder", IMAGES, ids=lambda path: path.name)
def test_the_card_says_other_sizes_only_of_what_answers_them(folder: Path) -> None:
    model = TRMForGridReasoning.from_pretrained(folder)
    try:
        takes_others = model.solve(torch.ones(1, 16, dtype=torch.long), max_steps=1).answers.shape == (1, 16)
    except ValueError:
        takes_others = False
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert takes_others is ("other sizes are answered too" in text) is not ("other sizes need another" in text)


@pytest.mark.parametrize("folder", IMAGES, ids=lambda path: path.name)
def test_the_image_is_complete_and_small(folder: Path) -> None:
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= {path.name for path in folder.iterdir()}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert not [name for name in config if name.endswith("_backend")], "how a model runs is not what it is"
    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) < MAX_BYTES


@pytest.mark.parametrize("folder", shipped_checkpoints("sudoku").values(), ids=lambda path: path.name)
def test_it_solves_puzzles_of_the_shipped_sample(folder: Path) -> None:
    """Held-out puzzles of the source with the lowest rating; of ARC tests/cards/test_image.py has tasks."""
    model = TRMForGridReasoning.from_pretrained(folder).eval()
    puzzles = load_puzzles("sudoku", "test")
    easiest = min(np.unique(puzzles.sources), key=lambda source: puzzles.ratings[puzzles.sources == source].mean())
    chosen = choose_subset(puzzles.select((puzzles.sources == easiest).nonzero()[0]), 8)
    answers = model.solve(torch.from_numpy(chosen.inputs).long(), max_steps=16, halt=0.95).answers
    solved = (answers == torch.from_numpy(chosen.labels).long()).all(1)
    assert solved.sum() >= 6
