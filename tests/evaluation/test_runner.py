"""The metrics of a real (tiny, random) model against a naive recomputation, puzzle by puzzle, from its logits."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from datasets_builders.features import PuzzleSet, load_puzzles
from modeling_trm import GridProcessor, ReasoningConfig, TRMForGridReasoning
from modeling_trm.evaluation import (
    EvaluationRecords,
    choose_subset,
    evaluate_puzzles,
    record_puzzles,
    stratified_indices,
    summarise,
)
from modeling_trm.evaluation.display import groups

BLANK = 1
STEPS = 5
TIMES = ("seconds", "puzzles_per_second")
# Two latents, one, symbol fields, answers that are read: an evaluation sees nothing of the operators.
KINDS = ("tr-mamba2mlpt", "urm", "symbols-mamba2", "compact")


def reasoner(tiny_model: Callable[..., TRMForGridReasoning], preset: str = "trm-attn", **overrides: Any):
    """float64, so that no batch size flips an arg max."""
    return tiny_model(preset, **{"H_cycles": 1, "L_cycles": 1, **overrides}).double().eval()


def balance_halting(model: TRMForGridReasoning, puzzles: PuzzleSet) -> None:
    """Turns the halting head around if need be, and shifts it: puzzles ask to halt at various steps, and some never."""
    with torch.no_grad():
        halts = naive_logits(model, puzzles)[1]
        if halts[:, 0].mean() > halts[:, 1:].mean():  # otherwise every puzzle would halt at once
            model.q_head.weight.neg_()
            model.q_head.bias.neg_()
            halts = -halts
        model.q_head.bias.sub_(float(np.quantile(halts[:, 1:], 0.6)))


def naive_logits(model: TRMForGridReasoning, puzzles: PuzzleSet) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, S, L, V] and halt logits [N, S], one puzzle at a time."""
    logits, halts = [], []
    with torch.no_grad():
        for row in puzzles.inputs:
            state, of_puzzle, halts_of_puzzle = None, [], []
            for _ in range(STEPS):
                out = model(torch.tensor(row[None].astype(np.int64)), state=state)
                state = out.state
                of_puzzle.append(out.logits[0].numpy())
                halts_of_puzzle.append(float(out.halt_logits[0]))
            logits.append(of_puzzle)
            halts.append(halts_of_puzzle)
    return np.array(logits), np.array(halts)


def with_reachable_labels(puzzles: PuzzleSet, answers_NSL: np.ndarray) -> PuzzleSet:
    """Labels that the model does reach: the answer of some step for two puzzles in three, so that accuracies differ."""
    labels = puzzles.labels.copy()
    for row in range(len(puzzles)):
        if row % 3:
            labels[row] = answers_NSL[row, row % STEPS]
    return dataclasses.replace(puzzles, labels=labels)


def naive_answers(logits: np.ndarray, inputs: np.ndarray, blank: int | None) -> np.ndarray:
    answers = logits.argmax(axis=-1)
    return answers if blank is None else np.where(inputs[:, None] == blank, answers, inputs[:, None])


@pytest.mark.parametrize("blank", [None, BLANK])
def test_metrics_equal_a_naive_recomputation(tiny_model, small_sudoku, blank: int | None) -> None:
    model = reasoner(tiny_model, blank_token_id=blank)
    puzzles = small_sudoku(30)
    balance_halting(model, puzzles)
    logits, halts = naive_logits(model, puzzles)
    answers = naive_answers(logits, puzzles.inputs, blank)
    puzzles = with_reachable_labels(puzzles, answers)
    metrics = evaluate_puzzles(model, puzzles, max_steps=STEPS, batch_size=7, progress=False)

    scored = puzzles.labels != 0  # a random model may answer padding, which then is a label that is not scored
    right = [[all(answers[n, s][scored[n]] == puzzles.labels[n][scored[n]]) for s in range(STEPS)] for n in range(30)]
    right = np.array(right)
    assert 0.1 < right[:, -1].mean() < 0.9
    assert metrics["count"] == 30
    assert metrics["exact_accuracy"] == right[:, -1].mean()
    assert metrics["by_step"] == right.mean(axis=0).tolist()
    assert len(set(metrics["by_step"])) > 1

    first = [next((s + 1 for s in range(STEPS) if halts[n, s] > 0), 0) for n in range(30)]
    assert len(set(first)) > 2
    assert metrics["halting_histogram"] == [first.count(s) for s in range(1, STEPS + 1)]
    assert metrics["never_halted"] == first.count(0)
    assert metrics["mean_halting_step"] == pytest.approx(np.mean([s or STEPS for s in first]), rel=1e-12)
    at_halt = [right[n, (s or STEPS) - 1] for n, s in enumerate(first)]
    assert metrics["halt"]["exact_accuracy"] == np.mean(at_halt)
    assert metrics["halt"]["exact_when_halted"] == np.mean([r for r, s in zip(at_halt, first, strict=True) if s])

    blanks = (puzzles.inputs == BLANK) & scored
    assert metrics["cell_accuracy"] == pytest.approx((answers[:, -1] == puzzles.labels)[blanks].mean(), rel=1e-12)
    for source in ("easy", "hard", "middling"):
        of_source = right[puzzles.sources == source]
        assert metrics["by_source"][source]["count"] == len(of_source)
        assert metrics["by_source"][source]["by_step"] == of_source.mean(axis=0).tolist()
    assert metrics["non_finite"] == 0
    json.dumps(metrics, allow_nan=False)


@pytest.mark.parametrize("halt", [False, True])
def test_batch_size_does_not_matter(tiny_model, small_sudoku, halt: bool) -> None:
    model = reasoner(tiny_model, blank_token_id=BLANK)
    puzzles = small_sudoku(13)
    balance_halting(model, puzzles)
    labels = with_reachable_labels(puzzles, naive_answers(naive_logits(model, puzzles)[0], puzzles.inputs, BLANK))
    results = [
        evaluate_puzzles(model, labels, max_steps=STEPS, halt=halt, batch_size=size, progress=False)
        for size in (1, 5, 13, 1000)
    ]
    for result in results:
        for name in TIMES:
            del result[name]
        assert result == results[0]


@pytest.mark.parametrize("preset", KINDS)
def test_early_exit_agrees_with_the_full_pass(tiny_model, small_sudoku, preset: str) -> None:
    model = reasoner(tiny_model, preset, blank_token_id=BLANK)
    puzzles = small_sudoku(12)
    balance_halting(model, puzzles)
    puzzles = with_reachable_labels(puzzles, naive_answers(naive_logits(model, puzzles)[0], puzzles.inputs, BLANK))
    full = evaluate_puzzles(model, puzzles, max_steps=STEPS, progress=False)
    early = evaluate_puzzles(model, puzzles, max_steps=STEPS, halt=True, progress=False)
    for name in ("halting_histogram", "never_halted", "mean_halting_step", "halt", "count", "fingerprint"):
        assert early[name] == full[name], name
    assert early["exact_accuracy"] == full["halt"]["exact_accuracy"]
    assert "by_step" not in early
    assert "by_step" not in early["by_source"]["easy"]


def test_default_steps_mode_and_weights_are_left_alone(tiny_model, small_sudoku) -> None:
    model = reasoner(tiny_model)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    metrics = evaluate_puzzles(model, small_sudoku(4), progress=False)
    assert metrics["steps"] == model.config.halt_max_steps == len(metrics["by_step"])
    assert model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_shards_merge_to_the_whole(tiny_model, small_sudoku) -> None:
    model = reasoner(tiny_model, blank_token_id=BLANK)
    puzzles = small_sudoku(21)
    options = {"max_steps": 3, "progress": False, "score_valid": lambda question, answer: question[0] == answer[0]}
    whole = summarise(record_puzzles(model, puzzles, **options))
    shards = [record_puzzles(model, puzzles.select(np.arange(rank, 21, 2)), **options) for rank in range(2)]
    assert summarise(EvaluationRecords.concatenate(shards)) == whole


@pytest.mark.parametrize("way", [{}, {"halt": True}, {"damping": 0.5}], ids=str)
def test_the_answers_are_kept(tiny_model, small_sudoku, way: dict[str, Any]) -> None:
    """Puzzle by puzzle those of `solve`, over batches of unequal size."""
    model = reasoner(tiny_model, blank_token_id=BLANK)
    puzzles = small_sudoku(7)
    balance_halting(model, puzzles)
    records = record_puzzles(model, puzzles, max_steps=3, batch_size=3, progress=False, **way)
    options = {"halt": False, **way}
    solved = model.solve(torch.from_numpy(puzzles.inputs).long(), max_steps=3, **options)
    assert records.answers.dtype == np.uint8 and records.answers.tolist() == solved.answers.tolist()


def test_shards_of_different_runs_do_not_merge(tiny_model, small_sudoku) -> None:
    model, puzzles = reasoner(tiny_model), small_sudoku(3)
    parts = [record_puzzles(model, puzzles, max_steps=steps, progress=False) for steps in (1, 2)]
    with pytest.raises(ValueError, match="shards differ"):
        EvaluationRecords.concatenate(parts)
    with pytest.raises(ValueError, match="no evaluation records"):
        EvaluationRecords.concatenate([])


def test_validity_is_scored_on_decoded_grids(tiny_model, small_sudoku) -> None:
    model = reasoner(tiny_model, blank_token_id=BLANK)
    puzzles = small_sudoku(30)
    seen = []

    def first_cell_is_one(question: str, answer: str) -> bool:
        seen.append((question, answer))
        return answer[0] == "1"

    metrics = evaluate_puzzles(model, puzzles, max_steps=STEPS, progress=False, score_valid=first_cell_is_one)
    answers = naive_answers(naive_logits(model, puzzles)[0], puzzles.inputs, BLANK)[:, -1]
    grids = [puzzles.processor.decode(answer) for answer in answers]
    assert seen == [
        (puzzles.processor.decode(question), grid)
        for question, grid in zip(puzzles.inputs, grids, strict=True)
        if grid is not None
    ]
    expected = np.mean([grid is not None and grid[0] == "1" for grid in grids])
    assert metrics["valid"] == expected
    assert metrics["valid_ci95"][0] <= expected <= metrics["valid_ci95"][1]


def test_a_diverged_model_is_counted_not_hidden(tiny_model, small_sudoku) -> None:
    model = reasoner(tiny_model)
    with torch.no_grad():
        model.q_head.bias.fill_(float("nan"))
    for halt in (False, True):
        metrics = evaluate_puzzles(model, small_sudoku(5), halt=halt, progress=False)
        assert metrics["non_finite"] == 5
        json.dumps(metrics, allow_nan=False)


def test_ratings_fall_into_ordered_buckets(tiny_model, small_sudoku) -> None:
    metrics = evaluate_puzzles(reasoner(tiny_model), small_sudoku(50), max_steps=1, progress=False)
    buckets = metrics["by_rating"]
    assert sum(bucket["count"] for bucket in buckets) == 50
    assert len(buckets) == 5
    for lower, higher in itertools.pairwise(buckets):
        assert lower["min"] <= lower["max"] < higher["min"]
    unrated = dataclasses.replace(small_sudoku(9), ratings=np.zeros(9, dtype=np.int32))
    metrics = evaluate_puzzles(reasoner(tiny_model), unrated, max_steps=1, progress=False)
    assert [(bucket["min"], bucket["max"], bucket["count"]) for bucket in metrics["by_rating"]] == [(0, 0, 9)]
    assert not [name for name, _ in groups(metrics) if "rating" in name]  # shown nowhere: it is all of them


def test_progress_bar_shows_the_accuracy(tiny_model, small_sudoku, capsys) -> None:
    evaluate_puzzles(reasoner(tiny_model), small_sudoku(4), max_steps=1, batch_size=2)
    shown = capsys.readouterr().err
    assert "4/4" in shown
    assert "exact=" in shown
    evaluate_puzzles(reasoner(tiny_model), small_sudoku(4), max_steps=1, progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 0}, "max_steps=0 is not allowed; allowed: whole numbers from 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_impossible_options(tiny_model, small_sudoku, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_puzzles(reasoner(tiny_model), small_sudoku(2), progress=False, **options)


def test_empty_set(tiny_model, small_sudoku) -> None:
    with pytest.raises(ValueError, match="evaluation set of task 'sudoku' is empty"):
        evaluate_puzzles(reasoner(tiny_model), small_sudoku(1).select(np.arange(0)), progress=False)


@pytest.mark.parametrize(("field", "value"), [("seq_len", 81), ("vocab_size", 11)])
def test_model_of_another_size_names_both(tiny_model, small_sudoku, field: str, value: int) -> None:
    model = tiny_model("trm-attn", **{field: value})
    needed = {"seq_len": 16, "vocab_size": 6}[field]
    with pytest.raises(ValueError, match=f"config has {field}={value}, but 'sudoku' puzzles need {field}={needed}"):
        evaluate_puzzles(model, small_sudoku(2), progress=False)


def test_shipped_samples(tiny_model) -> None:
    """The real thing: 9x9 Sudoku and 30x30 mazes of the package, through a tiny hybrid."""
    for task, vocab_size, seq_len in (("sudoku", 11, 81), ("maze", 6, 900)):
        puzzles = choose_subset(load_puzzles(task, "test"), 4)
        model = tiny_model("tr-mamba2attn", vocab_size=vocab_size, seq_len=seq_len, L_cycles=1)
        metrics = evaluate_puzzles(model, puzzles, max_steps=2, progress=False, score_valid=lambda *grids: True)
        assert metrics["count"] == 4
        assert metrics["task"] == task
        assert metrics["fingerprint"] == puzzles.fingerprint
        assert sum(group["count"] for group in metrics["by_source"].values()) == 4


def test_stratified_choice() -> None:
    sources = np.array(["a"] * 600 + ["b"] * 300 + ["c"] * 100)
    chosen = stratified_indices(sources, 50, seed=3)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert [int((sources[chosen] == name).sum()) for name in "abc"] == [30, 15, 5]
    assert chosen.tolist() == stratified_indices(sources, 50, seed=3).tolist()
    assert chosen.tolist() != stratified_indices(sources, 50, seed=4).tolist()
    assert stratified_indices(sources, 5000).tolist() == list(range(1000))
    # Largest remainder: 7 of 6:3:1 is 4.2, 2.1, 0.7.
    assert [int((sources[stratified_indices(sources, 7)] == name).sum()) for name in "abc"] == [4, 2, 1]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        stratified_indices(sources, 0)


def test_chosen_subset_keeps_rows_together(small_sudoku) -> None:
    puzzles = small_sudoku(40)
    subset = choose_subset(puzzles, 10)
    rows = stratified_indices(puzzles.sources, 10)
    assert np.array_equal(subset.inputs, puzzles.inputs[rows])
    assert np.array_equal(subset.labels, puzzles.labels[rows])
    assert isinstance(subset.processor, GridProcessor)


@pytest.mark.parametrize("halt", [False, True])
def test_every_puzzle_is_asked_with_its_own_row_of_the_puzzle_table(tiny_model, small_sudoku, halt: bool) -> None:
    model = reasoner(tiny_model)
    puzzles = dataclasses.replace(small_sudoku(12), puzzle_ids=np.arange(12, dtype=np.int64) % 3)
    answers = []
    for row, puzzle_id in zip(puzzles.inputs, puzzles.puzzle_ids, strict=True):
        ids = torch.tensor(row[None].astype(np.int64))
        answers.append(model.solve(ids, torch.tensor([puzzle_id]), max_steps=STEPS, halt=halt).answers[0].numpy())
    known = dataclasses.replace(puzzles, labels=np.array(answers, dtype=np.uint8))
    options = {"max_steps": STEPS, "halt": halt, "batch_size": 5, "progress": False}
    assert evaluate_puzzles(model, known, **options)["exact_accuracy"] == 1
    assert evaluate_puzzles(model, known.select(np.arange(4, 12)), **options)["exact_accuracy"] == 1
    # The rows do matter: the blank one gives other answers.
    assert evaluate_puzzles(model, dataclasses.replace(known, puzzle_ids=None), **options)["exact_accuracy"] < 1


def walk_of(seed: int = 2) -> dict[str, Any]:
    return {"noise_std": 0.7, "generator": torch.Generator().manual_seed(seed)}


@pytest.mark.parametrize("preset", KINDS)
def test_a_search_without_noise_is_plain_solving(tiny_model, small_sudoku, preset: str) -> None:
    """One trajectory, its halt logit, step by step: the same figures, but for the name of the search."""
    model, puzzles = reasoner(tiny_model, preset, blank_token_id=BLANK), small_sudoku(12)
    balance_halting(model, puzzles)
    answers = naive_answers(naive_logits(model, puzzles)[0], puzzles.inputs, BLANK)
    puzzles = with_reachable_labels(puzzles, answers)
    options = {"max_steps": STEPS, "batch_size": 5, "progress": False}
    plain, searched = (evaluate_puzzles(model, puzzles, **options, **search) for search in ({}, {"max_batch": 3}))
    assert searched.pop("search") == ReasoningConfig(max_batch=3).search
    assert plain["exact_accuracy"] > 0 and {**plain, **dict.fromkeys(TIMES)} == {**searched, **dict.fromkeys(TIMES)}


@pytest.mark.parametrize("selection", ["halt", "vote", "residual", "valid"])
@pytest.mark.parametrize("halt", [False, True])
def test_a_search_scores_what_solve_takes(tiny_model, small_sudoku, halt: bool, selection: str) -> None:
    """Labels are what solve() answers at depth 3: there all hit, and at another depth or seed not."""
    model, puzzles, depth = reasoner(tiny_model, blank_token_id=BLANK), small_sudoku(12), 3
    with torch.no_grad():  # padding is never the largest: it is no label
        model.lm_head.weight[0] = model.lm_head.weight[1:3].mean(0)
    balance_halting(model, puzzles)

    def accept(input_ids: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        return answers.sum(1) % 2 == 0

    how: dict[str, Any] = {"num_trajectories": 3, "selection": selection, "max_batch": 4}
    how |= {"verifier": accept} if selection == "valid" else {}
    ids = torch.tensor(puzzles.inputs).long()
    after = [model.solve(ids, max_steps=s, halt=halt, **how, **walk_of()) for s in range(1, depth + 1)]
    labels = after[-1].answers.numpy()
    known = dataclasses.replace(puzzles, labels=labels.astype(np.uint8))
    right = np.array([(one.answers.numpy() == labels).all(1) for one in after])
    assert right[-1].mean() > 0.5
    for size in (5, 12):
        options: dict[str, Any] = {"max_steps": depth, "halt": halt, "batch_size": size, "progress": False}
        metrics = evaluate_puzzles(model, known, **options, **how, **walk_of())
        assert metrics["exact_accuracy"] == right[-1].mean()
        asked_for = {"num_trajectories": 3, "selection": selection, "max_batch": 4, "noise_std": 0.7}
        assert metrics["search"] == ReasoningConfig(**asked_for).search
        if halt:
            assert "by_step" not in metrics
            asked = (after[-1].steps < depth) | (after[-1].halt_probability > 0.5)
        else:  # after each step, as if the search had ended there
            assert metrics["by_step"] == right.mean(1).tolist() and right[0].mean() < right[-1].mean()
            asked = torch.stack([one.halt_probability > 0.5 for one in after]).any(0)
        assert metrics["halt"]["halted"] == asked.numpy().mean()
    other = evaluate_puzzles(model, known, **options, **how, **walk_of(3))
    assert other["exact_accuracy"] < right[-1].mean()  # so the noise is that of the generator


def test_a_search_that_solve_does_not_take_is_refused(tiny_model, small_sudoku) -> None:
    for halt in (False, True):
        with pytest.raises(ValueError, match="damping=1"):
            evaluate_puzzles(reasoner(tiny_model), small_sudoku(2), halt=halt, progress=False, damping=1.0)
