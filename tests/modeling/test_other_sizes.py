"""A model on grids of other sizes than it was made for: the same function as a model made for that size."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import pipeline

from datasets_builders.features import load_puzzles
from datasets_builders.maze_generation import generate_mazes
from modeling_trm import GridProcessor, TRMConfig, TRMForGridReasoning
from modeling_trm.diagnostics.observation import observe
from modeling_trm.evaluation import evaluate_puzzles
from modeling_trm.layers_trm import sincos_table_2d
from scripts import eval_puzzles
from scripts import solve as solve_script

TRAINED = {"vocab_size": 11, "seq_len": 81, "blank_token_id": 1, "mamba_d_state": 6}
LISTS: dict[str, dict[str, Any]] = {
    "attention": {"block_operators": ["attention", "symbols", "mlp"], "position_embedding": "rope2d"},
    "mamba2": {"block_operators": ["mamba2", "mamba2", "symbols"], "scan_orders": ["raster", "transposed-reversed"]},
    "waves": {"block_operators": ["mamba2", "symbols"], "position_embedding": "sincos2d"},
    "no prefix": {"block_operators": ["attention", "symbols"], "puzzle_prefix_len": 0, "num_puzzles": 1},
}
PUZZLE = "1.3.....2...4..."


@pytest.fixture
def trained(tiny_model: Callable[..., TRMForGridReasoning]) -> Callable[..., TRMForGridReasoning]:
    """A model for 9x9."""

    def make(**fields: Any) -> TRMForGridReasoning:
        model = tiny_model("symbols-attn", **{**TRAINED, **fields}).eval()
        if model.model.puzzle_emb is not None:
            torch.nn.init.normal_(model.model.puzzle_emb.weight)
        return model

    return make


def made_for(model: TRMForGridReasoning, side: int) -> TRMForGridReasoning:
    """A model whose config says this size, with the same weights; of a puzzle's symbols the first ones, or zeros."""
    fields = model.config.to_dict() | {"vocab_size": 2 + side, "seq_len": side * side}
    other = TRMForGridReasoning(TRMConfig.from_dict(fields)).to(model.dtype).eval()
    weights = dict(model.state_dict())
    if model.model.puzzle_emb is not None:
        table = model.model.puzzle_emb.weight.detach()
        weights["model.puzzle_emb.weight"] = F.pad(table, (0, other.config.puzzle_width - table.shape[1]))
    other.load_state_dict(weights)
    return other


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("side", [4, 16])
def test_another_size_is_the_function_of_a_model_made_for_it(name: str, side: int, trained) -> None:
    model = trained(**LISTS[name]).double()
    other, ids = made_for(model, side), torch.randint(2 + side, (2, side * side))
    state = expected_state = None
    with torch.no_grad():
        for _ in range(2):
            out, expected = model(ids, state=state), other(ids, state=expected_state)
            assert out.logits.shape == (2, side * side, 2 + side)
            assert torch.equal(out.logits, expected.logits)
            assert torch.equal(out.halt_logits, expected.halt_logits)
            state, expected_state = out.state, expected.state


MAZE_LISTS: dict[str, dict[str, Any]] = {
    "conv2d": {"block_operators": ["conv2d", "mlp"], "position_embedding": "none"},
    "mamba2": {"block_operators": ["mamba2", "conv2d"], "scan_orders": ["transposed"], "puzzle_prefix_len": 0},
    "axial": {"block_operators": ["axial", "mlp"], "position_embedding": "none"},
    "attention": {"block_operators": ["attention", "mlp"], "position_embedding": "rope2d"},
}


@pytest.mark.parametrize("name", MAZE_LISTS)
def test_mazes_of_other_sizes_are_the_function_of_a_model_made_for_them(name: str, tiny_model) -> None:
    """Without symbol fields the tokens of every size are the same."""
    model = tiny_model("trm-attn", vocab_size=6, seq_len=16, num_puzzles=1, **MAZE_LISTS[name]).double().eval()
    other = TRMForGridReasoning(TRMConfig.from_dict(model.config.to_dict() | {"seq_len": 49})).double().eval()
    other.load_state_dict(model.state_dict())
    mazes = generate_mazes((7, 7), 3, more_than=5)
    ids = torch.from_numpy(mazes.inputs).long()
    assert model.config.misfit("maze", 6, 49) is None and "vocab_size=6" in model.config.misfit("sudoku", 9, 49)
    for first, second in zip(model(ids)[:2], other(ids)[:2], strict=True):
        assert torch.equal(first, second)
    results = [evaluate_puzzles(one, mazes, max_steps=2, progress=False) for one in (model, other)]
    assert results[0]["by_step"] == results[1]["by_step"] and results[0]["cell_accuracy"] == results[1]["cell_accuracy"]


def test_a_maze_checkpoint_is_evaluated_by_its_own_size_or_another(tiny_model, tmp_path: Path) -> None:
    model = tiny_model("trm-attn", vocab_size=6, seq_len=100, **MAZE_LISTS["conv2d"])
    model.save_pretrained(tmp_path / "model")
    GridProcessor("maze", (10, 10)).save_pretrained(tmp_path / "model")
    for words, side in (([], 10), (["--side", "15"], 15)):
        arguments = ["--model", str(tmp_path / "model"), *words, "--max-steps", "1", "--max-puzzles", "5"]
        assert eval_puzzles.main([*arguments, "--output", str(tmp_path / f"out{side}")]) == 0
        metrics = json.loads((tmp_path / f"out{side}" / "metrics.json").read_text())["evaluations"]["test"]
        assert metrics["dataset"] == f"shipped sample maze-{side}x{side}/test.parquet"
        assert metrics["valid_and_shortest"] == 0.0  # asked by the rules, whether or not --task is given


def test_a_cell_of_a_box_enters_alike_in_every_size() -> None:
    """The shortest wave is a box long: the middle of every box of 4x4 and 16x16 is half a turn from its first cell."""
    four, sixteen = (sincos_table_2d(0, (n, n), 4, 10.0, torch.zeros(())).view(n, n, 4) for n in (4, 16))
    for row in range(4):
        for column in range(4):
            same = sixteen[2 * row, 2 * column]
            torch.testing.assert_close(four[row, column], same, rtol=0, atol=1e-6)
    torch.testing.assert_close(sixteen.square().mean(-1), torch.ones(16, 16), rtol=0, atol=1e-6)


@pytest.mark.parametrize("engine", ["eager", "auto"])
def test_solving_and_searching_take_the_size_from_the_puzzle(engine: str, trained) -> None:
    model, ids = trained(answer_feedback=True, num_step_embeddings=2), GridProcessor("sudoku", (4, 4))(PUZZLE).input_ids
    other = made_for(model, 4)
    ways: list[dict[str, Any]] = [{"halt": 0.5}, {"num_trajectories": 3, "random_start": True, "selection": "vote"}]
    for options in ways:
        results: list[Tensor] = []
        for one in (model, other):
            generator = torch.Generator().manual_seed(0)
            results.append(one.solve(ids, max_steps=2, engine=engine, generator=generator, **options).answers)
        assert torch.equal(*results)
        assert results[0].shape == (1, 16)


def test_evaluation_and_diagnosis_take_it_too(trained) -> None:
    model = trained(**LISTS["mamba2"])
    puzzles = load_puzzles("sudoku", "test", grid_shape=(4, 4)).select(range(6))
    one, two = (evaluate_puzzles(m, puzzles, max_steps=2, progress=False) for m in (model, made_for(model, 4)))
    assert one["exact_accuracy"] == two["exact_accuracy"]
    assert one["by_step"] == two["by_step"]
    ids = torch.from_numpy(puzzles.inputs).long()
    assert torch.equal(observe(model, ids, max_steps=1).answers, observe(made_for(model, 4), ids, max_steps=1).answers)


def test_the_pipeline_takes_the_processors_size(trained) -> None:
    model = trained(**LISTS["attention"])
    with torch.no_grad():  # no special token is answered
        model.lm_head.weight[:2] = model.lm_head.weight[2:].mean(0)
    pipe = pipeline("grid-reasoning", model=model, feature_extractor=GridProcessor("sudoku", (4, 4)), device="cpu")
    result = pipe(PUZZLE, max_steps=1, views=3)
    assert len(result["answer"]) == 16
    assert all(given in (".", cell) for given, cell in zip(PUZZLE, result["answer"]))


def test_the_commands_take_a_side(trained, tmp_path: Path, capsys) -> None:
    trained(**LISTS["attention"]).save_pretrained(tmp_path / "model")
    GridProcessor("sudoku").save_pretrained(tmp_path / "model")
    model = str(tmp_path / "model")
    assert solve_script.main(["--model", model, "--side", "4", "--max-steps", "1", "--json", PUZZLE]) == 0
    assert json.loads(capsys.readouterr().out)[0]["puzzle"] == PUZZLE
    arguments = ["--model", model, "--side", "4", "--max-steps", "1", "--max-puzzles", "5"]
    assert eval_puzzles.main([*arguments, "--output", str(tmp_path / "out")]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())["evaluations"]["test"]
    assert metrics["count"] == 5
    assert metrics["dataset"] == "shipped sample sudoku-4x4/test.parquet"


WHY: dict[str, tuple[dict[str, Any], str]] = {
    "no fields": (
        {"symbol_fields": False, "block_operators": ["attention"], "position_embedding": "rope"},
        "only a model with symbol_fields, 'conv2d', 'axial', 'rope2d' or 'sincos2d'",
    ),
    "MLP-t": ({"block_operators": ["mlp_t", "symbols"]}, "'mlp_t' has weights for each position"),
    "learned": ({"position_embedding": "learned"}, "position_embedding='learned' has weights for each position"),
    "colours": ({"vocab_size": 12}, "its 10 symbols are not as many as a square grid has columns"),
}


@pytest.mark.parametrize("name", WHY)
def test_a_model_that_cannot_says_why(name: str, trained) -> None:
    fields, why = WHY[name]
    model = trained(**fields)
    with pytest.raises(ValueError, match=rf"\[2, 16\]: this model was made for 81 cells .* not for 16: {why}"):
        model(torch.ones(2, 16, dtype=torch.long))


def test_a_size_that_is_no_square_and_a_state_of_another_size_are_refused(trained) -> None:
    model = trained(**LISTS["attention"])
    with pytest.raises(ValueError, match="not for 12: of other sizes it answers square grids alone"):
        model(torch.ones(2, 12, dtype=torch.long))
    with pytest.raises(ValueError, match=r"latents of shape \[9, 83, 32\], grids of 16 cells \[4, 18, 32\]"):
        model(torch.ones(2, 16, dtype=torch.long), state=model.initial_state(2))
    with pytest.raises(ValueError, match=r"input_ids holds 1..9; allowed: 0..5"):
        model(torch.tensor([[9] + [1] * 15]))
    assert math.prod(model.config.latent_shape_of(16)) == 4 * 18 * 32


def test_a_grid_without_boxes_is_refused_by_what_attends_along_them(tiny_model) -> None:
    fields = {"block_operators": ["axial"], "axial_lines": ["rows", "boxes"], "position_embedding": "none"}
    model = tiny_model("trm-attn", vocab_size=6, seq_len=16, num_puzzles=1, **fields)
    with pytest.raises(
        ValueError, match=r"input_ids has shape \[1, 36\]: .* a grid of 6x6 cells has no boxes; allowed"
    ):
        model(torch.ones(1, 36, dtype=torch.long))


def test_a_card_keeps_the_picture_of_its_own_size(tmp_path: Path) -> None:
    card = tmp_path / "card"
    shutil.copytree(Path(__file__).parents[2] / "model_cards" / "trm-axial-symbols-sudoku", card, symlinks=False)
    before = (card / "plots" / "solving.gif").read_bytes()
    arguments = ["--model", str(card), "--max-puzzles", "8", "--max-steps", "8", "--update-card", "--side", "4"]
    assert eval_puzzles.main([*arguments, "--card-entry", "few", "--output", str(tmp_path / "out")]) == 0
    metrics = json.loads((card / "metrics.json").read_text())
    assert metrics["evaluations"]["few"]["exact_accuracy"] > 0.5  # so that there would have been a picture
    assert (card / "plots" / "solving.gif").read_bytes() == before
