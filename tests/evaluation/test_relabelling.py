"""Sudokus solved again under other names: the renaming itself, and what is counted."""

import dataclasses

import numpy as np
import pytest
import torch

from datasets_builders.features import load_puzzles
from modeling_trm.commands import evaluate
from modeling_trm.evaluation.relabelling import relabelled, relabelling_metrics
from modeling_trm.evaluation.runner import evaluate_puzzles
from modeling_trm.utils.reading import read_json


def test_each_puzzle_has_its_digits_renamed_and_nothing_else(small_sudoku) -> None:
    puzzles = small_sudoku(24)
    renamed = relabelled(puzzles, seed=3)
    tables = set()
    for row in range(24):
        table: dict[int, int] = {}
        for ours, theirs in zip(
            np.concatenate([puzzles.inputs[row], puzzles.labels[row]]),
            np.concatenate([renamed.inputs[row], renamed.labels[row]]),
            strict=True,
        ):
            assert table.setdefault(int(ours), int(theirs)) == theirs
        assert table[1] == 1 and sorted(table.values()) == list(range(1, 6))
        tables.add(tuple(sorted(table.items())))
    assert len(tables) > 10  # each by its own draw, of 24 that there are
    assert np.array_equal(relabelled(puzzles, seed=3).inputs, renamed.inputs)
    assert not np.array_equal(relabelled(puzzles, seed=4).inputs, renamed.inputs)


def test_the_figures() -> None:
    exact, again = np.array([1, 1, 1, 1, 0, 0], dtype=bool), np.array([1, 1, 1, 0, 1, 0], dtype=bool)
    figures = relabelling_metrics(exact, again)
    assert (figures["exact_accuracy"], figures["kept"]) == (4 / 6, 3 / 4)
    assert figures["ci95"][0] < 4 / 6 < figures["ci95"][1] and figures["kept_ci95"][0] < 0.75 < figures["kept_ci95"][1]
    none = relabelling_metrics(np.zeros(6, dtype=bool), again)
    assert none["kept"] is None and none["kept_ci95"] is None


def test_symbol_fields_keep_all_they_solve_and_digits_do_not(tiny_model, small_sudoku) -> None:
    """Labels are what each model answers, so that it solves every puzzle as it is."""
    kept = {}
    for name, fields in {
        "fields": {"symbol_fields": True, "puzzle_prefix_len": 0, "num_puzzles": 1},
        "digits": {},
    }.items():
        model, puzzles = tiny_model("trm-attn", **fields).double().eval(), small_sudoku(12)
        solved = model.solve(torch.from_numpy(puzzles.inputs).long(), max_steps=2, engine="eager").answers
        puzzles = dataclasses.replace(puzzles, labels=solved.numpy().astype(np.uint8))
        metrics = evaluate_puzzles(model, puzzles, max_steps=2, engine="eager", progress=False, relabel_seed=0)
        assert metrics["exact_accuracy"] == 1
        kept[name] = metrics["relabelled"]["kept"]
    assert kept["fields"] == 1 and kept["digits"] < 0.5


def test_other_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="task 'maze' have a meaning"):
        relabelled(load_puzzles("maze", "test", subset=2), 0)


def test_the_command_reports_it(capsys, refused, tmp_path) -> None:
    arguments = ["--model", "tr-mamba2mlpt-sudoku-quickstart", "--max-puzzles", "12", "--max-steps", "4"]
    assert evaluate.main([*arguments, "--relabel", "--output", str(tmp_path)]) == 0
    metrics = read_json(tmp_path / "metrics.json")["evaluations"]["test"]
    assert metrics["exact_accuracy"] > 0 and metrics["relabelled"]["kept"] == 1
    assert "digits renamed: " in capsys.readouterr().out
    assert "--relabel without a search" in refused(
        evaluate.main,
        [*arguments, "--relabel", "--num-trajectories", "2", "--noise-std", "1", "--output", str(tmp_path)],
    )
