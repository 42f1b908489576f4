"""Evaluations with every engine: the packed one gives the eager one's figures, and the one used is named."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from modeling_trm.engines_trm import choose_engine, packing_missing, resolve_engine
from modeling_trm.evaluation import evaluate_puzzles
from modeling_trm.evaluation.engine import precision
from modeling_trm.voting.collect import collect_votes, model_sha256
from modeling_trm.voting.records import load_records
from modeling_trm.voting.views import PuzzleViews
from tests.conftest import ONE_OF_A_KIND

TIMES = ("seconds", "puzzles_per_second", "engine")
WAYS: dict[str, dict[str, Any]] = {
    "every step": {},
    "halting": {"halt": True},
    "search": {"num_trajectories": 2, "noise_std": 0.3, "selection": "vote"},
    "halting search": {"halt": True, "num_trajectories": 2, "random_start": True},
}


@pytest.fixture
def model(tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A tiny model, of which the packed engine takes two puzzles at a time."""
    monkeypatch.setattr("modeling_trm.engines_trm.ELEMENTS", 40 * 32)

    def make(preset: str) -> Any:
        made = tiny_model(preset, blank_token_id=1).eval()
        if packing_missing(made) is not None:
            pytest.skip(f"no packed engine here: {packing_missing(made)}")
        return made

    return make


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("preset", ONE_OF_A_KIND)
def test_packed_metrics_equal_eager_ones(preset: str, way: str, model, small_sudoku) -> None:
    reasoner, puzzles, found = model(preset), small_sudoku(12), {}
    for engine in ("eager", "auto"):
        options = dict(WAYS[way])
        options["generator"] = torch.Generator().manual_seed(3)
        metrics = evaluate_puzzles(
            reasoner, puzzles, max_steps=3, batch_size=5, progress=False, engine=engine, **options
        )
        assert metrics["engine"] == {"auto": "packed"}.get(engine, engine)
        found[engine] = {name: value for name, value in metrics.items() if name not in TIMES}
    assert found["auto"] == found["eager"]


@pytest.mark.parametrize("preset", ONE_OF_A_KIND)
def test_packed_votes_equal_eager_ones(preset: str, model, small_sudoku, tmp_path) -> None:
    reasoner, views, found = model(preset), PuzzleViews(small_sudoku(4), 3), {}
    for engine in ("eager", "packed"):
        folder = tmp_path / engine
        assert collect_votes(reasoner, views, folder, max_steps=2, batch_size=5, progress=False, engine=engine)
        found[engine] = load_records(folder)
        assert found[engine].manifest["engine"] == engine
    assert found["eager"].grids == found["packed"].grids
    assert found["eager"].grid_of_vote.tolist() == found["packed"].grid_of_vote.tolist()
    assert found["packed"].halt_probability == pytest.approx(found["eager"].halt_probability, abs=1e-4)


def test_an_engine_is_prepared_once_an_evaluation(model, small_sudoku, monkeypatch) -> None:
    prepared = []
    monkeypatch.setattr(
        "modeling_trm.evaluation.runner.choose_engine", lambda *given: prepared.append(given) or choose_engine(*given)
    )
    evaluate_puzzles(model("mamba2"), small_sudoku(9), max_steps=1, batch_size=2, progress=False)
    assert len(prepared) == 1


def test_an_engine_is_made_of_the_model_in_evaluation_mode(tiny_model, small_sudoku, monkeypatch) -> None:
    """A view keeps the mode it was made in: dropout of a user's operator would run."""
    made, modes = tiny_model("trm-attn").train(), []
    monkeypatch.setattr(
        "modeling_trm.evaluation.runner.choose_engine", lambda model, _: modes.append(model.training) or model
    )
    evaluate_puzzles(made, small_sudoku(2), max_steps=1, progress=False)
    assert modes == [False] and made.training


@pytest.mark.parametrize("halt", [0.0, 1.0, 2.0, 1, None])
def test_a_halt_probability_is_refused_before_anything_is_written(halt, tiny_model, small_sudoku, tmp_path) -> None:
    made, puzzles = tiny_model("trm-attn"), small_sudoku(2)
    with pytest.raises(ValueError, match=f"halt={halt} is not allowed"):
        evaluate_puzzles(made, puzzles, halt=halt, progress=False)
    with pytest.raises(ValueError, match=f"halt={halt} is not allowed"):
        collect_votes(made, PuzzleViews(puzzles, 2), tmp_path / "votes", halt=halt, progress=False)
    assert not (tmp_path / "votes").exists()


def test_halting_figures_are_of_the_probability_asked_for(tiny_model, small_sudoku) -> None:
    made, puzzles = tiny_model("trm-attn", blank_token_id=1).eval(), small_sudoku(8)
    with torch.no_grad():
        made.q_head.weight.zero_()
        made.q_head.bias.fill_(1.0)  # a halt probability of 0.73
    steps = {
        halt: evaluate_puzzles(made, puzzles, max_steps=3, halt=halt, progress=False)["mean_halting_step"]
        for halt in (True, 0.7, 0.75)
    }
    assert steps == {True: 1.0, 0.7: 1.0, 0.75: 3.0}
    never = evaluate_puzzles(made, puzzles, max_steps=3, halt=0.75, progress=False)
    assert never["never_halted"] == 8 and never["early_exit"] == 0.75


def test_the_choice_of_kernels_is_no_other_model(tiny_model) -> None:
    """Votes begun with other kernels, or before there was a choice, are of the same weights."""
    made = tiny_model("trm-mlp-t")
    before = model_sha256(made)
    made.set_kernels(mlp_t_backend="torch", attention_backend="math", ssd_backend="torch")
    assert model_sha256(made) == before
    made.config.rope_theta = 100.0
    assert model_sha256(made) != before


def test_names_are_those_of_what_runs(tiny_model) -> None:
    made = tiny_model("trm-attn")
    assert resolve_engine(made.double(), "auto") == "eager" and choose_engine(made, "auto") is made
    assert resolve_engine(made, "bfloat16") == precision(made, "bfloat16") == "bfloat16"
    assert precision(made, "int8").startswith("int8 with ") and precision(made, "eager") == "float64"


@pytest.mark.parametrize("halt", [False, True])
def test_an_engine_that_cannot_run_is_named(halt: bool, tiny_model, small_sudoku, tmp_path) -> None:
    made, puzzles = tiny_model("trm-attn").double(), small_sudoku(2)
    for engine, message in (("fast", "engine='fast' is unknown"), ("packed", "engine='packed' cannot run here")):
        with pytest.raises(ValueError, match=message):
            evaluate_puzzles(made, puzzles, halt=halt, progress=False, engine=engine)
        with pytest.raises(ValueError, match=message):
            collect_votes(made, PuzzleViews(puzzles, 2), tmp_path / "votes", progress=False, engine=engine)
    assert not (tmp_path / "votes").exists()
