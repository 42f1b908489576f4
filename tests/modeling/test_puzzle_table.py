"""The puzzle table in memory against a dictionary of vectors: extend, trim, train."""

import copy
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeling_trm import TRMConfig, TRMForGridReasoning, TRMModel
from modeling_trm.puzzle_index_trm import PuzzleIndex
from modeling_trm.puzzle_table_trm import PuzzleTable
from modeling_trm.training.optimisers import SignSGD
from tests.oracles.puzzle_table import as_dict, assert_same_rows, logits_of, make_index

D = 32  # of TINY


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_add_and_trim_against_a_dictionary(tiny_config: Callable[..., TRMConfig], data: st.DataObject) -> None:
    model = TRMModel(tiny_config("trm-mlp-t", num_puzzles=1, seq_len=16))
    torch.nn.init.normal_(model.puzzle_emb.weight)
    oracle = as_dict(PuzzleIndex.blank(), model.puzzle_emb.weight)
    assert_same_rows(model, oracle)
    new_names = (f"task{number}" for number in itertools.count())
    for _ in range(data.draw(st.integers(1, 5))):
        present = {name for name, _ in oracle if name is not None}
        if data.draw(st.booleans()):
            added = {next(new_names): count for count in data.draw(st.lists(st.integers(1, 3), max_size=3))}
            index, init = make_index(added, seed=len(oracle)), data.draw(st.sampled_from(["mean", "zeros"]))
            known = [row for (name, _), row in oracle.items() if name is not None] or list(oracle.values())
            vector = torch.stack(known).double().mean(0) if init == "mean" else torch.zeros(D)
            numbers = model.add_tasks(index, init=init)
            assert numbers.tolist() == list(range(len(oracle), len(oracle) + len(index) - 1))
            fresh = as_dict(index, model.puzzle_emb.weight[[0, *numbers]])
            for row in list(fresh.values())[1:]:
                # A float32 mean against a float64 one.
                torch.testing.assert_close(row.double(), vector.double(), rtol=1e-6, atol=1e-6)
            oracle |= dict(list(fresh.items())[1:])
        else:
            kept = data.draw(st.sets(st.sampled_from(sorted(present)))) if present else set()
            former = model.trim_tasks(kept)
            assert former.tolist() == [r for r, (name, _) in enumerate(oracle) if name is None or name in kept]
            oracle = {key: row for key, row in oracle.items() if key[0] is None or key[0] in kept}
        assert_same_rows(model, oracle)


def test_mean_row_is_the_mean_of_all_but_the_blank(model: TRMForGridReasoning) -> None:
    expected = model.model.puzzle_emb.weight[1:].mean(0)
    (number,) = model.add_tasks(make_index({"new": 1}))
    assert torch.equal(model.model.puzzle_emb.weight[number], expected)


def test_outputs_of_kept_tasks_stay(model: TRMForGridReasoning, tmp_path: Path) -> None:
    """Bit for bit, through extending, saving, loading and trimming in turn."""
    before, kept = logits_of(model, ["a", "b", "c"]), logits_of(model, ["b", "c"])
    model.add_tasks(make_index({"new": 2}, seed=1))
    assert torch.equal(logits_of(model, ["a", "b", "c"]), before)
    model.save_pretrained(tmp_path)
    model = TRMForGridReasoning.from_pretrained(tmp_path)
    assert torch.equal(logits_of(model, ["a", "b", "c"]), before)
    model.trim_tasks(["c", "b"])
    assert torch.equal(logits_of(model, ["b", "c"]), kept)
    model.save_pretrained(tmp_path)
    model = TRMForGridReasoning.from_pretrained(tmp_path)
    assert torch.equal(logits_of(model, ["b", "c"]), kept)
    assert (model.puzzle_index.tasks, model.config.num_puzzles) == (("b", "c"), 4)


def test_type_device_and_counts_follow(model: TRMForGridReasoning) -> None:
    core = model.num_parameters_core()
    model.to(torch.bfloat16).model.puzzle_emb.weight.requires_grad_(False)
    model.model.puzzle_emb.sparse = True
    model.add_tasks(make_index({"new": 4}))
    assert (model.num_parameters_table(), model.model.num_parameters_table()) == (11 * D, 11 * D)
    model.trim_tasks(["new"])
    table = model.model.puzzle_emb
    assert isinstance(table, PuzzleTable)
    assert (table.weight.dtype, table.weight.requires_grad, table.sparse) == (torch.bfloat16, False, True)
    assert (model.num_parameters_core(), model.num_parameters_table()) == (core, 5 * D)
    assert [name for name in model.state_dict() if "puzzle" in name] == ["model.puzzle_emb.weight"]


def test_copy_is_a_table_of_its_own(model: TRMForGridReasoning) -> None:
    expected = as_dict(model.puzzle_index, model.model.puzzle_emb.weight)
    copied = copy.deepcopy(model)
    assert_same_rows(copied, expected)
    copied.trim_tasks(["a"])
    assert_same_rows(model, expected)


def test_update_touches_the_rows_of_the_batch_alone(model: TRMForGridReasoning) -> None:
    numbers = model.add_tasks(make_index({"new": 5}, seed=1), init="zeros")
    before = model.model.puzzle_emb.weight.detach().clone()
    model.model.puzzle_emb.sparse = True
    optimiser = SignSGD([model.model.puzzle_emb.weight], lr=0.01, weight_decay=0.1)
    ids = torch.tensor([numbers[0], 2, numbers[3], 2])
    model(torch.randint(6, (4, 16)), puzzle_ids=ids, labels=torch.randint(6, (4, 16))).loss.backward()
    gradient = model.model.puzzle_emb.weight.grad
    assert gradient.is_sparse
    assert sorted(gradient.coalesce().indices()[0].tolist()) == sorted(set(ids.tolist()))
    optimiser.step()
    changed = (model.model.puzzle_emb.weight != before).any(1).nonzero()[:, 0].tolist()
    assert changed == sorted(set(ids.tolist()))


def test_bad_calls_are_refused(model: TRMForGridReasoning, tiny_model: Callable[..., TRMForGridReasoning]) -> None:
    with pytest.raises(ValueError, match="1 tasks are in the puzzle table already: 'b'"):
        model.add_tasks(make_index({"b": 1}))
    with pytest.raises(ValueError, match="init='random' is unknown; allowed: mean, zeros"):
        model.add_tasks(make_index({"new": 1}), init="random")
    with pytest.raises(ValueError, match="'d' has no row"):
        model.trim_tasks(["d"])
    with pytest.raises(ValueError, match="describes 1 rows, the puzzle table has 7"):
        model.set_puzzle_index(PuzzleIndex.blank())
    bare = tiny_model("trm-attn", puzzle_prefix_len=0, num_puzzles=1)
    assert (bare.puzzle_index, bare.num_parameters_table()) == (None, 0)
    for call in (lambda: bare.add_tasks(make_index({"a": 1})), lambda: bare.trim_tasks([])):
        with pytest.raises(ValueError, match="puzzle_prefix_len=0: the model has no puzzle table"):
            call()


@pytest.mark.parametrize(
    ("cell", "puzzle", "named"),
    [
        (6, 0, r"input_ids holds 0..6; allowed: 0..5 \(vocab_size=6\)"),
        (-1, 0, "input_ids holds -1..0"),
        (0, 7, r"puzzle_ids holds 0..7; allowed: 0..6 \(num_puzzles=7\)"),
        (0, -1, "puzzle_ids holds -1..0"),
    ],
)
def test_ids_out_of_range_are_named(cell: int, puzzle: int, named: str, model: TRMForGridReasoning) -> None:
    ids = torch.zeros(2, 16, dtype=torch.long)
    ids[1, 3] = cell
    with pytest.raises(ValueError, match=named):
        model(ids, puzzle_ids=torch.tensor([0, puzzle]))
