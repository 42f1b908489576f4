"""Every folder of model_cards/ is the image of a checkpoint that loads, solves, and has an up-to-date card."""

import json
import re
from pathlib import Path

import pytest
import torch

from datasets_builders.features import load_puzzles
from modeling_trm import GridProcessor, TRMForGridReasoning
from modeling_trm.cards.card import render_card
from modeling_trm.evaluation import choose_subset

ROOT = Path(__file__).parents[1] / "model_cards"
IMAGES = sorted(path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(("_", ".")))
MAX_BYTES = 1_000_000  # of weights in the repository


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
def test_the_image_is_complete_and_small(folder: Path) -> None:
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= {path.name for path in folder.iterdir()}
    assert not list(folder.glob("*.py")), "the code is added when it is published"
    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) < MAX_BYTES


@pytest.mark.parametrize("folder", IMAGES, ids=lambda path: path.name)
def test_it_solves_puzzles_of_the_shipped_sample(folder: Path) -> None:
    """Held-out puzzles of the source that it does best, by its card."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    by_source = metrics["evaluations"]["test"]["by_source"]
    best = max(by_source, key=lambda source: by_source[source]["exact_accuracy"])
    assert by_source[best]["exact_accuracy"] > 0.95  # else 6 of 8 below would be too many to ask for
    model, processor = TRMForGridReasoning.from_pretrained(folder).eval(), GridProcessor.from_pretrained(folder)
    puzzles = load_puzzles(processor.task, "test")
    chosen = choose_subset(puzzles.select((puzzles.sources == best).nonzero()[0]), 8)
    answers = model.solve(torch.from_numpy(chosen.inputs).long(), max_steps=16).answers
    solved = (answers == torch.from_numpy(chosen.labels).long()).all(1)
    assert solved.sum() >= 6
