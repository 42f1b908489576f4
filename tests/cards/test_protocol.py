"""The card protocol against loops that solve one puzzle at a time; its passes resume; its rows add up."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets_builders.features import PuzzleSet, load_puzzles
from modeling_trm import TRMForGridReasoning
from modeling_trm.cards.measure import measure_card
from modeling_trm.cards.protocol import PASSES, Measured, Protocol, measure
from modeling_trm.cards.ways import plain_figures, rows_of
from modeling_trm.evaluation import choose_subset, evaluate_puzzles
from modeling_trm.utils.intervals import wilson_interval
from modeling_trm.utils.loading import load_model
from modeling_trm.views_trm import draw_view

SMALL = Protocol({"steps": 9, "halting": 9, "views": 6, "trajectories": 6}, 5, 0.6, 7, (2, 3), (2,), 0.5)
EXACTLY: dict[str, Any] = {"engine": "eager", "progress": False}


@pytest.fixture(scope="module")
def model() -> TRMForGridReasoning:
    return load_model("tr-mamba2mlpt-sudoku-quickstart")


@pytest.fixture(scope="module")
def puzzles() -> PuzzleSet:
    return choose_subset(load_puzzles("sudoku", "test"), 12)


@pytest.fixture(scope="module")
def measured(model: TRMForGridReasoning, puzzles: PuzzleSet, tmp_path_factory: Any) -> dict[str, Measured]:
    found = measure(model, puzzles, SMALL, tmp_path_factory.mktemp("passes"), batch_size=6, **EXACTLY)
    return {one.name: one for one in found}


def one_by_one(model: TRMForGridReasoning, ids_L: np.ndarray, steps: int) -> list[tuple[np.ndarray, float]]:
    """Answer and halt probability after every step, by the loop over `forward` that the paper describes."""
    input_ids = torch.from_numpy(ids_L)[None].long()
    state, found = model.initial_state(1), []
    with torch.no_grad():
        for _ in range(steps):
            out = model(input_ids, state=state)
            answer = torch.where(input_ids == 1, out.logits.argmax(-1), input_ids)[0].numpy()
            found.append((answer, out.halt_logits.sigmoid().item()))
            state = out.state
    return found


def stop(walk: list[tuple[np.ndarray, float]], halt: float) -> int:
    return next((step for step, (_, probability) in enumerate(walk, start=1) if probability > halt), len(walk))


def test_all_passes_ran_in_their_order(measured: dict[str, Measured]) -> None:
    assert tuple(measured) == PASSES
    assert [len(one.puzzles) for one in measured.values()] == [9, 9, 6, 6]


def test_the_pass_of_all_steps_is_what_evaluate_puzzles_finds(model, measured: dict[str, Measured]) -> None:
    one = measured["steps"]
    figures, expected = plain_figures(one), evaluate_puzzles(model, one.puzzles, max_steps=5, **EXACTLY)
    for timed in ("seconds", "puzzles_per_second"):
        del figures[timed], expected[timed]
    assert figures.pop("precision") == "float32" and "threads" in figures.pop("hardware")
    assert figures == expected
    assert 0 < figures["by_step"][-1] < 1  # else all puzzles would be alike
    rows = rows_of(one, trained_steps=3, command="c")
    assert [(row["way"], row["exact_accuracy"]) for row in rows] == [
        ("3 steps", expected["by_step"][2]),
        ("5 steps", expected["by_step"][4]),
    ]


def test_halting_stops_each_puzzle_at_its_first_sure_step(model, measured: dict[str, Measured]) -> None:
    one = measured["halting"]
    walks = [one_by_one(model, ids_L, 7) for ids_L in one.puzzles.inputs]
    for row, limit in zip(rows_of(one, trained_steps=4, command="c"), (4, 7), strict=True):
        ends = [stop(walk[:limit], 0.6) for walk in walks]
        right = [np.array_equal(walk[end - 1][0], label) for walk, end, label in zip(walks, ends, one.puzzles.labels)]
        halted = [walk[end - 1][1] > 0.6 for walk, end in zip(walks, ends, strict=True)]
        assert row["way"] == f"halting at 0.6, up to {limit} steps"
        assert (row["solved"], row["mean_steps"], row["halted"]) == (sum(right), np.mean(ends), np.mean(halted))
        assert row["exact_when_halted"] == np.mean([is_right for is_right, did in zip(right, halted) if did])
        assert row["ci95"] == list(wilson_interval(sum(right), 9))
    assert 0 < np.mean(halted) < 1
    early = evaluate_puzzles(model, one.puzzles, max_steps=7, halt=0.6, **EXACTLY)
    figures = plain_figures(one)
    assert {name: figures[name] for name in ("exact_accuracy", "halting_histogram", "cell_accuracy", "halt")} == {
        name: early[name] for name in ("exact_accuracy", "halting_histogram", "cell_accuracy", "halt")
    }


def test_views_vote(model, measured: dict[str, Measured]) -> None:
    one = measured["views"]
    rows = {row["way"].split(";")[0]: row for row in rows_of(one, trained_steps=3, command="c")}
    for K in (2, 3):
        solved, found, steps = 0, 0, 0
        for number, (ids_L, label_L) in enumerate(zip(one.puzzles.inputs, one.puzzles.labels, strict=True)):
            votes: Counter[bytes] = Counter()
            sure: dict[bytes, list[float]] = {}
            for view in range(K):
                drawn = draw_view("sudoku", (9, 9), 0, number, view)
                walk = one_by_one(model, drawn.apply(ids_L), 5)
                end = stop(walk, 0.6)
                answer = drawn.undo(walk[end - 1][0]).astype(np.uint8).tobytes()
                votes[answer] += 1
                sure.setdefault(answer, []).append(walk[end - 1][1])
                steps += end
            best = max(votes, key=lambda answer: (votes[answer], np.mean(sure[answer])))
            solved, found = solved + (best == label_L.tobytes()), found + (label_L.tobytes() in votes)
        assert rows[f"{K} views, most votes"]["solved"] == solved
        assert rows[f"any of {K} views, which no choice can exceed"]["solved"] == found
        assert rows[f"{K} views, most votes"]["mean_steps"] == steps / 6


def test_trajectories_differ_and_no_choice_exceeds_any(measured: dict[str, Measured]) -> None:
    vote, halt, anyone = rows_of(measured["trajectories"], trained_steps=3, command="c")
    assert vote["way"].startswith("2 trajectories with noise 0.5, most votes; halting at 0.6, up to 5 steps")
    assert halt["way"].startswith("2 trajectories with noise 0.5, largest halt logit")
    assert max(vote["solved"], halt["solved"]) <= anyone["solved"]
    assert 2 <= vote["mean_steps"] <= 10


def test_a_killed_measurement_goes_on_to_the_same_figures(
    model, puzzles: PuzzleSet, measured: dict[str, Measured], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol, walks = replace(SMALL, puzzles={"steps": 0, "halting": 9, "views": 0, "trajectories": 6}), []
    solve = TRMForGridReasoning.solve

    def fails_at_the_third(self: Any, input_ids: torch.Tensor, *arguments: Any, **ways: Any) -> Any:
        walks.append(len(input_ids))
        if len(walks) == 3:
            raise KeyboardInterrupt
        return solve(self, input_ids, *arguments, **ways)

    monkeypatch.setattr(TRMForGridReasoning, "solve", fails_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        measure(model, puzzles, protocol, tmp_path, batch_size=6, **EXACTLY)
    again = measure(model, puzzles, protocol, tmp_path, batch_size=6, **EXACTLY)
    assert walks == [6, 3, 6, 6, 6]  # 9 puzzles, then 2 trajectories of 3 puzzles, twice: none a second time
    for one in again:
        for name, values in measured[one.name].outcome.items():
            assert name == "seconds" or np.array_equal(values, one.outcome[name]), name
    with pytest.raises(
        ValueError, match=r"halting: was begun by another evaluation: its halt is 0\.6, this one's 0\.7"
    ):
        measure(model, puzzles, replace(protocol, halt=0.7), tmp_path, batch_size=6, **EXACTLY)


def test_the_evaluation_of_a_card(model, puzzles: PuzzleSet, tmp_path: Path) -> None:
    protocol = replace(SMALL, puzzles={"halting": 5, "trajectories": 2})
    figures, plots = measure_card(model, puzzles, protocol, tmp_path, command="the command", dataset="few", **EXACTLY)
    assert [row["pass"] for row in figures["ways"]] == ["halting", "trajectories", "trajectories", "trajectories"]
    assert figures["early_exit"] == 0.6 and figures["count"] == 5 and figures["command"] == "the command"
    assert all(row["seconds"] > 0 and row["engine"] == "eager" for row in figures["ways"])
    assert {path.name for path in plots.iterdir()} == {"test_halting.png", "solving.gif"}
    json.dumps(figures, allow_nan=False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"puzzles": {"views": 3}}, "allowed: 0 or more, steps or halting above 0"),
        ({"puzzles": {"steps": -1}}, "allowed: 0 or more"),
        ({"puzzles": {"step": 1}}, "names the pass 'step'; allowed: steps, halting, views, trajectories"),
        ({"steps": 0}, "steps=0 is not allowed; allowed: 1 or more"),
        ({"halt": 1.0}, "halt=1.0 is not allowed"),
        ({"views": (1,)}, r"views=\[1\] is not allowed; allowed: distinct numbers from 2"),
        ({"noise_std": 0.0}, "noise_std=0.0 is not allowed; allowed: above 0"),
    ],
)
def test_what_cannot_be_meant(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **fields)
