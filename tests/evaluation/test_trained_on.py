"""Figures on what was trained on are told of: the hashes that a checkpoint keeps, and the line of a command."""

import numpy as np
import pytest

from datasets_builders.sampling import TrainingStream
from modeling_trm.commands import compare, evaluate
from modeling_trm.evaluation.trained_on import KEPT, KEY, count_trained_on, hashes_kept, trained_on_note
from modeling_trm.utils.files import write_json


@pytest.mark.parametrize("count", [6, KEPT - 1])
def test_few_puzzles_are_known_one_by_one(count):
    rows = np.random.default_rng(0).integers(1, 10, (2 * count, 81), dtype=np.uint8)
    kept = hashes_kept(rows[:count], {})
    assert count_trained_on(rows, kept) == (count, True)
    assert count_trained_on(rows[count:], kept) == (0, True)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_of_many_puzzles_a_share_is_estimated_from_a_text_that_stays_small(share):
    rows = np.random.default_rng(0).integers(1, 10, (20_000, 81), dtype=np.uint8)
    small = rows[:30, :16]  # of another size, which the many do not drown
    kept = hashes_kept(rows[:10_000], hashes_kept(small, {}))
    assert max(map(len, kept.values())) < 12_000 and count_trained_on(small, kept) == (30, True)
    first = 10_000 - int(4_000 * share)
    number, is_counted = count_trained_on(rows[first : first + 4_000], kept)
    assert not is_counted and abs(number - 4_000 * share) <= 4_000 * 0.1 * (0 < share < 1)


def test_what_is_never_drawn_was_not_trained_on(small_sudoku):
    puzzles = small_sudoku(10)
    assert TrainingStream(puzzles, seed=0).questions is puzzles.inputs
    drawn = TrainingStream(puzzles, seed=0, source_weights={"easy": 1, "middling": 0})
    assert np.array_equal(drawn.questions, puzzles.inputs[puzzles.sources == "easy"])


@pytest.fixture
def own(tiny_model, small_sudoku, tmp_path):
    """A run's model folder, of six of the eight puzzles in the file beside it."""
    puzzles, folder = small_sudoku(8), tmp_path / "run" / "model"
    tiny_model("trm-attn").save_pretrained(folder)
    puzzles.processor.save_pretrained(folder)
    write_json(folder / "metrics.json", {KEY: hashes_kept(puzzles.inputs[:6], {})})
    lines = [f"{q},{a}" for q, a in zip(*map(puzzles.to_table().to_pydict().get, ("question", "answer")), strict=True)]
    (tmp_path / "my.csv").write_text("\n".join(["question,answer", *lines]))
    return folder, puzzles


def test_a_command_that_scores_says_what_was_trained_on(own, tmp_path, capsys):
    model, data = str(own[0]), ["--data", str(tmp_path / "my.csv"), "--max-steps", "1"]
    expected = f"note: {model} was trained on 6 of these 8 puzzles: the figures are not those of new ones"
    assert evaluate.main(["--model", model, *data, "--output", str(tmp_path / "one")]) == 0
    assert f"{expected}\n" in capsys.readouterr().err
    held_out = tmp_path / "run" / "test.parquet"
    held_out.touch()
    two = ["--models", model, model, "--names", "a", "b", *data, "--output", str(tmp_path / "two")]
    assert compare.main(two) == 0
    assert capsys.readouterr().err.count(f"{expected}; its run held out {held_out}\n") == 2


@pytest.mark.parametrize(
    "text", [None, "[1]", "{", "{}", '{"trained_on": 5}', '{"trained_on": "é"}', '{"trained_on": {"81": "é"}}']
)
def test_a_checkpoint_that_cannot_tell_is_scored_all_the_same(own, text):
    folder, puzzles = own
    assert trained_on_note(str(folder), puzzles.inputs) and trained_on_note(str(folder), puzzles.inputs[6:]) is None
    (folder / "metrics.json").unlink()
    if text is not None:
        (folder / "metrics.json").write_text(text, encoding="utf-8")
    assert trained_on_note(str(folder), puzzles.inputs) is None
