"""Symbol fields, scan orders and two-dimensional positions: exact equivariance, and the stack against its oracle."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from modeling_trm import OPERATORS, RecursionState, TRMConfig, TRMForGridReasoning
from modeling_trm.grid_sizes_trm import SCAN_ORDERS
from modeling_trm.operators_trm import Stack
from tests.oracles import operators as oracle

SPECIAL = 2  # padding and blank of TINY, whose symbols are four digits
LISTS = [[name] for name in OPERATORS] + [[name, "symbols", "mlp"] for name in OPERATORS if name != "symbols"]
VARIANTS: dict[str, dict[str, Any]] = {
    "attention over the others": {"position_embedding": "rope2d", "scan_orders": ["transposed-reversed"]},
    "mean of the others": {"symbol_mixing": "mean", "num_latents": 1, "position_embedding": "learned"},
    "a puzzle speaks to each cell of each symbol": {"puzzle_conditioning": "cells", "puzzle_symbol_width": 8},
    "it reads its answers": {
        "answer_feedback": True,
        "num_step_embeddings": 2,
        "puzzle_prefix_len": 0,
        "num_puzzles": 1,
    },
}


def relabelled(ids: Tensor, permutation: Tensor) -> Tensor:
    """Each symbol s as permutation[s]; special tokens stay."""
    return torch.where(ids < SPECIAL, ids, permutation[(ids - SPECIAL).clamp(min=0)] + SPECIAL)


def moved(x: Tensor, permutation: Tensor, dim: int) -> Tensor:
    """What stood at symbol s stands at permutation[s]."""
    return x.index_select(dim, permutation.argsort())


@contextmanager
def relabelled_table(model: TRMForGridReasoning, permutation: Tensor) -> Iterator[None]:
    """Each puzzle's numbers of its symbols, behind the vector that they share, as its relabelled puzzle has them."""
    if model.model.puzzle_emb is None:
        yield
        return
    weight, D = model.model.puzzle_emb.weight, model.config.hidden_size
    before = weight.detach().clone()
    own_BKW = before[:, D:].unflatten(1, (len(permutation), -1))
    weight.data[:, D:] = moved(own_BKW, permutation, 1).flatten(1)
    yield
    weight.data.copy_(before)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("operators", LISTS, ids="-".join)
def test_relabelling_the_symbols_relabels_everything(
    operators: list[str], variant: str, tiny_model: Callable[..., TRMForGridReasoning]
) -> None:
    model = tiny_model("trm-attn", block_operators=operators, symbol_fields=True, **VARIANTS[variant]).double()
    ids, puzzle_ids = torch.randint(model.config.vocab_size, (3, 16)), torch.arange(3) % model.config.num_puzzles
    table = model.model.puzzle_emb
    if table is not None:
        torch.nn.init.normal_(table.weight)
    permutation = torch.tensor([2, 0, 3, 1])
    state = model.initial_state(3).map(lambda z: torch.randn(z.shape, dtype=torch.float64))
    other = state.map(lambda z: moved(z, permutation, 1))
    for _ in range(2):
        with torch.no_grad():
            one = model(ids, puzzle_ids, state=state)
            with relabelled_table(model, permutation):
                two = model(relabelled(ids, permutation), puzzle_ids, state=other)
        state, other = one.state, two.state
        symbols = moved(one.logits[..., SPECIAL:], permutation, 2)
        expected = torch.cat((one.logits[..., :SPECIAL], symbols), dim=2)
        torch.testing.assert_close(two.logits, expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(two.halt_logits, one.halt_logits, rtol=0, atol=1e-10)
        for ours, theirs in zip((other.z_H, other.z_L), (state.z_H, state.z_L)):
            if ours is not None:
                torch.testing.assert_close(ours, moved(theirs, permutation, 1), rtol=0, atol=1e-10)
        if state.answers is not None:
            assert torch.equal(other.answers, relabelled(state.answers, permutation))
    assert not torch.allclose(two.logits, one.logits)  # so that the permutation is no identity here


def test_a_model_without_fields_is_not_equivariant(tiny_model: Callable[..., TRMForGridReasoning]) -> None:
    model, permutation = tiny_model("trm-attn").double(), torch.tensor([2, 0, 3, 1])
    ids = torch.randint(SPECIAL, 6, (3, 16))
    one, two = model(ids).logits, model(relabelled(ids, permutation)).logits
    assert (two[..., SPECIAL:] - moved(one[..., SPECIAL:], permutation, 2)).abs().max() > 0.1


@pytest.mark.parametrize("width", [1, 2, 32])
def test_a_puzzle_has_a_vector_for_all_fields_and_numbers_for_each(width: int, tiny_model) -> None:
    """arXiv 2603.02193, public code: a task may be about one colour, which no permutation of the colours may undo."""
    model = tiny_model("symbols-attn", puzzle_prefix_len=2, num_puzzles=3, puzzle_symbol_width=width).double()
    D, K = model.config.hidden_size, model.config.num_symbols
    table = model.model.puzzle_emb.weight
    assert table.shape == (3, D + K * width)
    torch.nn.init.normal_(table)
    x = model.model.embed(torch.ones(2, 16, dtype=torch.long), torch.tensor([2, 1]), model.initial_state(2))
    for b, row in enumerate((2, 1)):
        for k in range(K):
            own = table[row, D + k * width : D + (k + 1) * width].repeat_interleave(D // width)
            expected = (table[row, :D] + own) * D**0.5
            torch.testing.assert_close(x[b, k, 0], expected, rtol=0, atol=1e-12)
            assert (x[b, k, 1] == 0).all()


def test_every_field_begins_alike_and_the_state_says_how_many(tiny_model) -> None:
    model = tiny_model("symbols-mamba2", vocab_size=9)
    state: RecursionState = model.initial_state(2)
    assert state.z_H.shape == (2, 7, 18, 32)
    assert (state.z_H == state.z_H[:1, :1, :1]).all()


# --- against the oracle ---------------------------------------------------------------------------------------------

ORDERS = [[one, other] for one, other in product(SCAN_ORDERS, ["raster", "transposed-reversed"])]


@pytest.mark.parametrize("fields", [True, False], ids=["fields", "no fields"])
@pytest.mark.parametrize("orders", ORDERS, ids="-".join)
def test_scan_orders_of_an_oblong_grid_equal_the_oracle(
    orders: list[str], fields: bool, tiny_config: Callable[..., TRMConfig]
) -> None:
    """Two rows of three behind a prefix; the third Mamba-2 takes the first order again."""
    config = tiny_config(
        "mamba2",
        block_operators=["mamba2", "mlp", "mamba2", "mamba2"],
        seq_len=6,
        grid_width=3,
        scan_orders=orders,
        symbol_fields=fields,
    )
    assert_stack_equals_the_oracle(config)


@pytest.mark.parametrize(("seq_len", "grid_width"), [(16, None), (6, 3), (6, 1)])
@pytest.mark.parametrize("prefix", [0, 2])
def test_positions_in_two_dimensions_equal_the_oracle(seq_len: int, grid_width: int | None, prefix: int, tiny_config):
    sizes = {"seq_len": seq_len, "grid_width": grid_width, "puzzle_prefix_len": prefix, "num_puzzles": 1}
    assert_stack_equals_the_oracle(tiny_config("trm-attn", position_embedding="rope2d", **sizes))


def assert_stack_equals_the_oracle(config: TRMConfig) -> None:
    torch.manual_seed(1)
    stack = TRMForGridReasoning(config).model.stack.double()
    assert type(stack) is Stack
    h = torch.randn(2, *config.latent_shape, dtype=torch.float64, requires_grad=True)
    weights = dict(stack.named_parameters())
    actual, expected = stack(h, stack.prepare(h)), oracle.stack(weights, config, h)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)
    projection = torch.randn_like(actual)
    ours, theirs = (torch.autograd.grad((y * projection).sum(), [h, *weights.values()]) for y in (actual, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_the_roles_of_symbol_fields_are_not_resized_as_a_vocabulary(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("symbols-attn")
    roles = model.resize_token_embeddings()  # which resizes nothing
    with pytest.raises(ValueError, match=r"resize_token_embeddings\(6\): with symbol_fields=True the embedding holds"):
        model.resize_token_embeddings(model.config.vocab_size, mean_resizing=False)
    assert model.get_input_embeddings() is roles and roles.num_embeddings == 4


def test_a_sudoku_with_rows_and_bands_permuted_has_its_answer_permuted(tiny_model) -> None:
    """Without positions "axial" knows a place by its lines alone: the symmetries of a Sudoku are its own, exactly."""
    fields = {"block_operators": ["axial", "symbols"], "axial_lines": ["rows", "columns", "boxes"]}
    model = tiny_model("symbols-attn", puzzle_prefix_len=0, num_puzzles=1, position_embedding="none", **fields).double()
    ids = torch.randint(model.config.vocab_size, (3, 4, 4))
    rows, columns, within = torch.tensor([3, 2, 0, 1]), torch.tensor([1, 0, 2, 3]), torch.tensor([0, 2, 1, 3])
    one = model(ids.flatten(1))
    two = model(ids[:, rows][:, :, columns].flatten(1))
    expected = one.logits.unflatten(1, (4, 4))[:, rows][:, :, columns].flatten(1, 2)
    torch.testing.assert_close(two.logits, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(two.halt_logits, one.halt_logits, rtol=0, atol=1e-10)
    across = model(ids[:, within].flatten(1)).logits  # a row of one band for one of the other: another puzzle
    assert (across - one.logits.unflatten(1, (4, 4))[:, within].flatten(1, 2)).abs().max() > 0.01
