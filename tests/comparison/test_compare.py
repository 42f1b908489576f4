"""Comparison of models: counts by hand, the test by enumeration, the records against an evaluation of each alone."""

import json
from collections.abc import Callable, Mapping
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets_builders.features import PuzzleSet
from modeling_trm import PRESETS, GridProcessor, TRMConfig, TRMForGridReasoning
from modeling_trm.comparison.compare import (
    Outcome,
    check_grids,
    compare_models,
    compare_pair,
    figures_of,
    mcnemar_exact,
    preset_of,
    run_side_by_side,
    solved_only_by,
)
from modeling_trm.comparison.plots import agreement_map, solved_only_bars
from modeling_trm.comparison.report import markdown_comparison, size_text, write_comparison
from modeling_trm.evaluation.records import EvaluationRecords, summarise
from modeling_trm.evaluation.runner import evaluate_puzzles
from modeling_trm.utils.flops import flops
from modeling_trm.voting.collect import collect_votes
from modeling_trm.voting.comparison import compare_votes
from modeling_trm.voting.records import load_records
from modeling_trm.voting.views import PuzzleViews

COUNT = 11
TIMES = ("seconds", "puzzles_per_second")
Models = Mapping[str, TRMForGridReasoning]


@pytest.fixture
def models(tiny_model: Callable[..., TRMForGridReasoning]) -> Models:
    """Of every preset one, in float64, so that no answer hangs on the rounding of its batch."""
    return {preset: tiny_model(preset, blank_token_id=1).double() for preset in PRESETS}


@pytest.fixture
def puzzles(small_sudoku: Callable[[int], PuzzleSet]) -> PuzzleSet:
    """Four in five cells are given, so that a model without training solves some."""
    whole = small_sudoku(COUNT)
    inputs = np.where(np.random.RandomState(1).rand(*whole.labels.shape) < 0.1, 1, whole.labels).astype(np.uint8)
    return PuzzleSet("sudoku", inputs, whole.labels, whole.sources, whole.ratings, whole.processor)


def outcome(exact: list[list[int]], answers: list[list[int]], first_halt: list[int], seconds: float = 1.0) -> Outcome:
    N = len(exact)
    records = EvaluationRecords(
        sources=np.array(["a"] * N), ratings=np.zeros(N, dtype=int), exact=np.array(exact, dtype=bool),
        halt_probability=np.zeros((N, len(exact[0])), dtype=np.float32),
        first_halt=np.array(first_halt), answers=np.array(answers, dtype=np.uint8), cells_right=np.ones(N, dtype=int),
        cells=np.full(N, 2), non_finite=np.zeros(N, dtype=bool), valid=None, max_steps=len(exact[0]), early_exit=False,
    )  # fmt: skip
    return Outcome(records, seconds)


def test_records_are_those_of_an_evaluation_alone(models: Models, puzzles: PuzzleSet) -> None:
    outcomes = run_side_by_side(models, puzzles, max_steps=3, batch_size=4, progress=False)
    solved = 0
    for name, model in models.items():
        alone = evaluate_puzzles(model, puzzles, max_steps=3, batch_size=3, progress=False)
        assert summarise(outcomes[name].records).items() <= {k: v for k, v in alone.items() if k not in TIMES}.items()
        answers = model.solve(torch.from_numpy(puzzles.inputs).long(), max_steps=3).answers
        assert outcomes[name].records.answers.tolist() == answers.tolist()
        assert outcomes[name].seconds > 0
        solved += int(outcomes[name].solved_N.sum())
    assert 0 < solved < COUNT * len(models)  # else the test shows little


def test_models_take_turns(models: Models, puzzles: PuzzleSet) -> None:
    """Every batch through every model, another one first each time; before that one step each, not counted."""
    seen: list[tuple[str, int]] = []
    for name, model in models.items():
        model.register_forward_pre_hook(lambda _, inputs, name=name: seen.append((name, len(inputs[0]))))
    run_side_by_side(models, puzzles, max_steps=1, batch_size=4, progress=False)
    names = list(models)
    expected = [(name, size) for size in (4,) for name in names]
    for turn, size in enumerate((4, 4, 3)):
        expected += [(name, size) for name in names[turn:] + names[:turn]]
    assert seen == expected


def test_a_pair_by_hand() -> None:
    labels = np.array([[2, 3], [2, 0], [4, 5], [3, 3]])
    right = [[0, 1], [1, 1], [0, 0], [1, 0]]  # after the last step: puzzles 0 and 1
    first = outcome(right, [[2, 3], [2, 9], [4, 4], [3, 1]], [1, 1, 0, 0])
    second = outcome([[0, 0], [0, 1], [0, 0], [0, 0]], [[2, 2], [2, 7], [4, 4], [2, 1]], [0, 0, 0, 0])
    pair = compare_pair(("x", "y"), {"y": second, "x": first}, labels)
    assert pair == {
        "names": ["x", "y"], "agreement": 0.5, "both": 1, "only": [1, 0], "neither": 2, "difference": 0.25, "p": 1.0,
    }  # fmt: skip  # alike: puzzle 1, where they differ in padding alone, and 2, wrong alike
    swapped = compare_pair(("y", "x"), {"y": second, "x": first}, labels)
    assert swapped["only"] == [0, 1] and swapped["difference"] == -0.25


def test_figures_by_hand(tiny_model: Callable[..., TRMForGridReasoning]) -> None:
    model = tiny_model("tr-mamba2attn")
    exact = [[0, 1, 1], [1, 1, 0], [0, 0, 0], [0, 0, 1]]
    figures = figures_of(model, outcome(exact, [[2]] * 4, [2, 3, 1, 0], seconds=6.0))
    assert figures["first_right_step"] == {"count": 3, "mean": (2 + 1 + 3) / 3}
    assert figures["mean_halting_step"] == (2 + 3 + 1 + 3) / 4 and figures["halt"]["exact_accuracy"] == 0.5
    assert figures["flops_puzzle"] == 3 * figures["flops_step"] == 3 * flops(model.config)
    assert figures["flops_solved_puzzle"] == flops(model.config) * 2.5  # puzzles 0 and 3, at steps 2 and 3
    assert figures["seconds_per_puzzle"] == 1.5 and figures["by_step"] == [0.25, 0.5, 0.5]
    assert figures["preset"] == "tr-mamba2attn"
    assert figures["parameters"] == {
        "core": sum(w.numel() for n, w in model.named_parameters() if "puzzle_emb" not in n),
        "table": 3 * 32,
    }
    nothing = figures_of(model, outcome([[0, 0]], [[2]], [0]))
    assert nothing["flops_solved_puzzle"] is None and nothing["first_right_step"] == {"count": 0, "mean": None}


def test_a_model_without_a_table(tiny_model: Callable[..., TRMForGridReasoning]) -> None:
    model = tiny_model("trm-attn", puzzle_prefix_len=0, num_puzzles=1, block_operators=["attention"])
    figures = figures_of(model, outcome([[1]], [[2]], [1]))
    assert figures["parameters"] == {"core": model.num_parameters(), "table": 0} and figures["preset"] is None


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_known_by_their_operators(preset: str) -> None:
    assert preset_of(TRMConfig.from_preset(preset, hidden_size=64)) == preset


@pytest.mark.parametrize("count", range(8))
def test_mcnemar_by_enumeration(count: int) -> None:
    """All ways in which the puzzles that one model alone solves could have fallen to the two, equally likely."""
    splits = [abs(2 * sum(owners) - count) for owners in product((0, 1), repeat=count)]
    for only_first in range(count + 1):
        observed = abs(2 * only_first - count)
        expected = sum(split >= observed for split in splits) / len(splits)
        assert mcnemar_exact(only_first, count - only_first) == pytest.approx(expected, abs=1e-15)


def test_mcnemar_of_many_puzzles() -> None:
    assert mcnemar_exact(10_000, 10_000) == 1.0 and mcnemar_exact(0, 2000) == 0.0  # 2 ** -1999 is no float
    assert mcnemar_exact(5100, 4900) == pytest.approx(0.0466, abs=2e-4)  # normal approximation, corrected: z = 1.99


def test_solved_only_by() -> None:
    solved = {"a": [1, 1, 0, 1, 0], "b": [0, 1, 0, 0, 1], "c": [0, 1, 0, 0, 1]}
    arrays = {name: np.array(flags, dtype=bool) for name, flags in solved.items()}
    assert solved_only_by(arrays) == {"a": 2, "b": 0, "c": 0}


@pytest.mark.usefixtures("whole_pictures")
def test_comparison_is_consistent_and_written(models: Models, puzzles: PuzzleSet, tmp_path: Path) -> None:
    comparison = compare_models(models, puzzles, max_steps=2, batch_size=4, progress=False)
    matrix = np.array(comparison["agreement"])
    assert (matrix == matrix.T).all() and (matrix.diagonal() == 1).all() and matrix.shape == (len(models),) * 2
    names = list(models)
    for pair in comparison["pairs"]:
        a, b = (comparison["models"][name] for name in pair["names"])
        assert pair["both"] + sum(pair["only"]) + pair["neither"] == COUNT
        assert pair["difference"] == pytest.approx(a["exact_accuracy"] - b["exact_accuracy"])
        assert pair["agreement"] == matrix[names.index(pair["names"][0]), names.index(pair["names"][1])]
        assert pair["agreement"] >= pair["both"] / COUNT
    assert [pair["names"] for pair in comparison["pairs"]] == [list(p) for p in combinations(models, 2)]
    assert len({*matrix[np.triu_indices(len(models), 1)]}) > 1
    written = write_comparison(comparison, tmp_path)
    assert [path.name for path in written] == [
        "comparison.json", "comparison.md", "accuracy_by_step.png", "agreement.png", "solved_only_by.png"
    ]  # fmt: skip
    assert json.loads(written[0].read_text()) == comparison
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written[2:])
    page = written[1].read_text()
    assert all(page.count(f"\n| {name} (") == 1 and page.count(f"\n| {name} |") == 1 for name in models)


def test_votes_are_those_of_an_evaluation_by_voting(models: Models, puzzles: PuzzleSet, tmp_path: Path) -> None:
    two = {name: models[name] for name in ("trm-attn", "mamba2")}
    comparison = compare_models(two, puzzles, max_steps=2, views=5, seed=3, batch_size=4, progress=False)
    for name, model in two.items():
        collect_votes(model, PuzzleViews(puzzles, 5, 3), tmp_path / name, max_steps=2, progress=False)
    expected = compare_votes(*(load_records(tmp_path / name) for name in two), tuple(two), (1, 2, 5), 3)
    (pair,) = comparison["pairs"]
    assert pair["votes"]["pass_at_k"] == expected["pass_at_k"] and pair["votes"]["coverage"] == expected["coverage"]
    assert pair["votes"]["solved_by"] == expected["solved_by"]
    for number, name in enumerate(two):
        votes = comparison["models"][name]["votes"]
        assert votes["views"] == 5 and list(votes["pass_at_k"]) == ["pass@1", "pass@2", "pass@5"]
        assert votes["coverage"]["value"] == expected["coverage"]["values"][number]
        assert votes["means"]["entropy_bits"] == expected["means"]["entropy_bits"]["values"][number]
    assert "5 views of each puzzle" in markdown_comparison(comparison)
    assert (tmp_path / "plots" / "pass_at_k.png") in write_comparison(comparison, tmp_path)


def test_a_diverged_model_is_named(models: Models, puzzles: PuzzleSet) -> None:
    two = {name: models[name] for name in ("trm-attn", "mamba2")}
    with torch.no_grad():
        two["mamba2"].q_head.bias.fill_(float("nan"))
    page = markdown_comparison(compare_models(two, puzzles, max_steps=1, progress=False))
    assert f"WARNING: NaN or infinite halt logits: mamba2 on {COUNT} puzzles." in page


@pytest.mark.usefixtures("whole_pictures")
def test_plots_of_many_models(tmp_path: Path) -> None:
    """More than there are colours, with long names."""
    names = [f"runs/of/some/long/path/with/a/name/{number}" for number in range(14)]
    comparison = {
        "task": "maze", "count": 10, "solved_by_all": 0, "solved_by_none": 10, "models": dict.fromkeys(names),
        "agreement": np.eye(14).tolist(), "solved_only_by": dict.fromkeys(names, 0),
    }  # fmt: skip
    assert agreement_map(comparison, tmp_path / "a.png").stat().st_size > 10_000
    assert solved_only_bars(comparison, tmp_path / "b.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("count", "text"), [(None, "-"), (0, "0"), (999, "999"), (6_829_058, "6.83M"), (1.5e9, "1.50G"), (2e12, "2.00T")]
)
def test_sizes(count: float | None, text: str) -> None:
    assert size_text(count) == text


def test_refusals(models: Models, puzzles: PuzzleSet, tiny_model: Callable[..., TRMForGridReasoning]) -> None:
    with pytest.raises(ValueError, match="nothing to compare: got 1 model, needs two or more"):
        compare_models({"one": models["mamba2"]}, puzzles)
    other = {"fits": models["mamba2"], "too long": tiny_model("trm-attn", seq_len=20)}
    with pytest.raises(ValueError, match="too long: the model does not fit the puzzles: its config has seq_len=20"):
        compare_models(other, puzzles)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        compare_models(models, puzzles, batch_size=0)
    with pytest.raises(ValueError, match="max_steps=0 is not allowed; allowed: whole numbers from 1"):
        compare_models(models, puzzles, max_steps=0)


def test_checkpoints_of_another_task_or_shape_are_named(puzzles: PuzzleSet) -> None:
    check_grids("own", GridProcessor("sudoku", grid_shape=(4, 4)), puzzles)
    with pytest.raises(ValueError, match="checkpoint 'x' was made for task 'maze', the puzzles have 'sudoku'"):
        check_grids("x", GridProcessor("maze", grid_shape=(4, 4)), puzzles)
    with pytest.raises(ValueError, match=r"'x' was made for grid_shape \[9, 9\], the puzzles have \[4, 4\]"):
        check_grids("x", GridProcessor("sudoku", grid_shape=(9, 9)), puzzles)
