"""Halting from records of every step: by hand on small ones, and on a model against solve() itself."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from datasets_builders.features import PuzzleSet
from modeling_trm import GridProcessor
from modeling_trm.evaluation.halting import DEPTH, answers_at, calibrate_halting, choose_halting, loses_nothing
from modeling_trm.evaluation.runner import record_puzzles


class Records(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.exact)


def records(exact: Any, probability: Any, early_exit: bool = False) -> Any:
    return Records(exact=np.array(exact, dtype=bool), halt_probability=np.array(probability), early_exit=early_exit)


def test_the_answer_at_the_stop() -> None:
    one = records([[0, 1, 0], [0, 0, 1], [1, 1, 0]], [[0.1, 0.6, 0.9], [0.7, 0.2, 0.8], [0.1, 0.2, 0.3]])
    assert answers_at(one, 3, 0.5).tolist() == [True, False, False]
    assert answers_at(one, 3, 0.75).tolist() == [False, True, False]
    assert answers_at(one, 2, 0.95).tolist() == [True, False, True]  # none stops: the last step there is


def test_a_loss_within_chance_is_none() -> None:
    reference = np.array([True] * 20 + [False] * 20)

    def after(lost: int, gained: int) -> bool:
        return loses_nothing(
            np.array([False] * lost + [True] * (20 - lost) + [True] * gained + [False] * (20 - gained)), reference
        )

    assert after(0, 0) and after(3, 3) and after(2, 9)
    assert after(3, 2) and after(6, 4)  # 1 < sqrt(5), 2 < sqrt(10)
    assert not after(1, 0) and not after(5, 0) and not after(8, 3)  # 5 > sqrt(11)


def test_the_fewest_steps_and_the_smallest_threshold_that_lose_nothing() -> None:
    """20 puzzles right from step 3 on, where the model is 0.85 sure; before it is 0.75 sure, and wrong."""
    exact = np.tile([0, 0, 1, 1, 1], (20, 1))
    probability = np.tile([0.1, 0.75, 0.85, 0.85, 0.9], (20, 1))
    assert choose_halting(records(exact, probability)) == {"max_steps": 3, "halt": 0.8}
    late = np.where(np.arange(20)[:, None] < 4, np.tile([0, 0, 0, 0, 1], (20, 1)), exact)  # four need all five steps
    sure = np.tile([0.1, 0.75, 0.9995, 0.9995, 0.9995], (20, 1))
    assert choose_halting(records(late, sure)) == {"max_steps": 5, "halt": False}
    assert choose_halting(records(np.zeros((4, 3)), probability[:4, :3])) == {}
    with pytest.raises(ValueError, match="early_exit=True: halting is chosen from records of every step"):
        choose_halting(records(exact, probability, early_exit=True))


def test_a_model_is_calibrated_on_puzzles_that_it_solves(tiny_model) -> None:
    """Labels are its own answers after two of four steps: neither more nor fewer are chosen."""
    model = tiny_model("trm-attn", blank_token_id=1, num_puzzles=1).eval()
    ids = torch.randint(1, 6, (40, 16))
    with torch.no_grad():
        model.lm_head.weight[:2] = model.lm_head.weight[2:].mean(0)  # padding and blank are never the largest
    labels = model.solve(ids, max_steps=2, engine="eager").answers
    arrays = [tensor.numpy().astype(np.uint8) for tensor in (ids, labels)]
    puzzles = PuzzleSet(
        "sudoku", *arrays, np.array(["a"] * 40), np.zeros(40), GridProcessor("sudoku", grid_shape=(4, 4))
    )
    chosen = calibrate_halting(model, puzzles, batch_size=16, progress=False, engine="eager")
    kept = record_puzzles(model, puzzles, max_steps=DEPTH * 4, batch_size=16, progress=False, engine="eager")
    assert kept.halt_probability.shape == kept.exact.shape == (40, DEPTH * 4)
    solved = kept.exact.sum(axis=0)
    assert solved.argmax() == 1 and solved[1] == 40 > solved[2]
    assert chosen.max_steps == 2
    if chosen.halt:
        answers = model.solve(ids, reasoning_config=chosen, engine="eager").answers
        assert loses_nothing((answers == labels).all(1).numpy(), kept.exact[:, 1])
    trace = model.solve(ids, max_steps=DEPTH * 4, return_trace=True, engine="eager").trace
    probability = torch.stack([step.halt_probability for step in trace], dim=1)
    torch.testing.assert_close(torch.from_numpy(kept.halt_probability), probability, atol=1e-5, rtol=1e-4)
