"""ArcStream against its own description of each row, applied grid by grid; epochs; translations; held-out pairs."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from datasets_builders.arc_build import build_arc
from datasets_builders.arc_sampling import ArcStream
from datasets_builders.arc_set import ArcOptions
from datasets_builders.arc_tasks import load_tasks
from modeling_trm.puzzle_index_trm import IDENTITY


@pytest.fixture(scope="module")
def arc_set(build_small):
    return build_small()


def naive_rows(stream, indices):
    """The rows one by one: the pair under its augmentation, encoded at its offset."""
    processor, rows = stream.arc_set.processor, {"inputs": [], "labels": [], "puzzle_ids": []}
    for index in indices:
        row = stream.describe(int(index))
        pair = stream.arc_set.pair(row.pair)
        for name, grid in (("inputs", pair.input), ("labels", pair.output)):
            rows[name].append(processor.encode(row.augmentation.apply(grid).tolist(), row.offset).numpy())
        rows["puzzle_ids"].append(row.puzzle_id)
    return {name: np.array(values) for name, values in rows.items()}


def assert_rows_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("seed", [0, 7])
def test_rows_are_what_their_descriptions_say(arc_set, seed, augment):
    stream = ArcStream(arc_set, seed=seed, augment=augment)
    indices = np.arange(3 * len(stream))
    rows = stream.rows(indices)
    assert rows["inputs"].dtype == rows["labels"].dtype == np.uint8 and rows["puzzle_ids"].dtype == np.int64
    assert rows["inputs"].shape == (len(indices), 144) and rows["inputs"].flags.c_contiguous
    assert_rows_equal(rows, naive_rows(stream, indices))


def test_rows_of_real_tasks_on_the_full_canvas():
    tasks = {"training": load_tasks("training")}
    options = ArcOptions(("training",), "training", num_augmentations=30, validation_tasks=2, max_tasks=24)
    stream = ArcStream(build_arc(tasks, options), seed=1)
    indices = np.arange(5, 5 + 2 * len(stream))
    assert_rows_equal(stream.rows(indices), naive_rows(stream, indices))


def test_all_dihedral_maps_occur(arc_set):
    stream = ArcStream(arc_set, seed=0)
    assert {stream.describe(index).augmentation.dihedral for index in range(len(stream))} == set(range(8))


def test_the_same_rows_whatever_batch_they_are_asked_in(arc_set):
    stream = ArcStream(arc_set, seed=3)
    indices = np.array([0, 5, len(stream) - 1, len(stream), 3 * len(stream) + 2, 5, 40 * len(stream)])
    together = stream.rows(indices)
    fresh = ArcStream(arc_set, seed=3)
    for place in reversed(range(len(indices))):
        alone = fresh.rows(indices[[place]])
        assert_rows_equal(alone, {name: values[[place]] for name, values in together.items()})


def test_many_epochs_in_one_batch_and_back_again(arc_set):
    """More epochs than are kept at a time."""
    stream = ArcStream(arc_set, seed=3)
    indices = np.arange(9) * len(stream)
    together = stream.rows(indices)
    assert_rows_equal(stream.rows(indices), together)
    assert_rows_equal(stream.rows(indices[::-1]), {name: values[::-1] for name, values in together.items()})


@pytest.mark.parametrize("augment", [True, False])
def test_an_epoch_has_every_example_once_task_after_task(arc_set, augment):
    stream = ArcStream(arc_set, seed=0, augment=augment)
    orders = []
    for epoch in range(3):
        rows = [stream.describe(epoch * len(stream) + place) for place in range(len(stream))]
        assert Counter(row.pair for row in rows) == Counter(arc_set.examples)
        tasks = [row.task for row in rows]
        changes = 1 + sum(a != b for a, b in pairwise(tasks))
        assert changes == len(set(tasks)) == len(arc_set.index.tasks)
        # One puzzle a task and epoch.
        assert len({(row.task, row.puzzle_id) for row in rows}) == len(set(tasks))
        orders.append(tasks)
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


def test_one_example_of_each_task_and_epoch_stays_where_it_is(arc_set):
    stream = ArcStream(arc_set, seed=0)
    moved, at_home = 0, Counter()
    for epoch in range(20):
        still = Counter()
        for place in range(len(stream)):
            row = stream.describe(epoch * len(stream) + place)
            still[row.task] += row.offset == (0, 0)
            at_home[row.pair] += row.offset == (0, 0)
            moved += row.offset != (0, 0)
        assert set(still) == set(arc_set.index.tasks) and min(still.values()) >= 1
    # Not always the same one, and the others do move: at most one in two is still, and some have nowhere to go.
    assert min(at_home[ref] for ref in arc_set.examples) < 20
    assert moved > 20 * len(stream) / 3


def test_offsets_are_uniform_over_where_both_grids_fit(arc_set):
    """Over 600 epochs of the example with most room: every place within five standard errors."""
    stream, epochs = ArcStream(arc_set, seed=0), 600
    sides = [np.maximum(arc_set.pair(ref).input.shape, arc_set.pair(ref).output.shape) for ref in arc_set.examples]
    chosen = int(np.argmin([side.max() for side in sides]))
    room = arc_set.options.max_grid_size - sides[chosen]
    task_size = sum(ref.task == arc_set.examples[chosen].task for ref in arc_set.examples)
    offsets = []
    for epoch in range(epochs):
        plan = stream._draw_epoch(epoch)
        place = int(np.flatnonzero(plan.examples == chosen)[0])
        is_transposed = arc_set.index.augmentation_of_row[plan.puzzle_ids[place], 0] & 4
        offsets.append(plan.offsets[place][::-1] if is_transposed else plan.offsets[place])
    moved = 1 - 1 / task_size  # the share of epochs in which the example is not the one that stays
    for axis in (0, 1):
        counts = np.bincount(np.array(offsets)[:, axis], minlength=room[axis] + 1)
        shares = np.full(room[axis] + 1, moved / (room[axis] + 1))
        shares[0] += 1 - moved
        assert len(counts) == room[axis] + 1
        np.testing.assert_allclose(counts / epochs, shares, atol=5 * np.sqrt(shares.max() / epochs))


def test_all_puzzles_of_a_task_occur(arc_set):
    stream = ArcStream(arc_set, seed=0)
    rows = np.concatenate([stream._draw_epoch(epoch).puzzle_ids for epoch in range(300)])
    assert set(rows.tolist()) == set(range(1, len(arc_set.index)))


def test_without_augmentation_the_rows_are_the_pairs(arc_set):
    stream = ArcStream(arc_set, seed=0, augment=False)
    for index in range(2 * len(stream)):
        row = stream.describe(index)
        np.testing.assert_array_equal(row.augmentation.to_bytes(), IDENTITY)
        assert row.offset == (0, 0) and row.puzzle_id == arc_set.identity_row(row.task)


@pytest.mark.parametrize("protocol", ["transductive", "inductive"])
def test_no_held_out_pair_ever_comes(build_small, protocol):
    arc_set = build_small(protocol=protocol)
    stream = ArcStream(arc_set, seed=0)
    held_out = {ref for split in ("validation", "test", "context") for ref in arc_set.splits[split]}
    assert held_out.isdisjoint(stream.describe(index).pair for index in range(2 * len(stream)))


def test_seeds_differ_and_repeat(arc_set):
    indices = np.arange(50)
    first, again, other = (ArcStream(arc_set, seed=seed).rows(indices) for seed in (0, 0, 1))
    assert_rows_equal(again, first)
    assert (other["puzzle_ids"] != first["puzzle_ids"]).any()


def test_what_is_refused(arc_set):
    with pytest.raises(ValueError, match=r"reveal=0\.5 is for Sudoku only"):
        ArcStream(arc_set, seed=0).rows(np.arange(2), reveal=0.5)
    with pytest.raises(ValueError, match="seed=-1 must not be negative"):
        ArcStream(arc_set, seed=-1)
