"""collect_votes: right votes for a model that is right, and the same records whoever ran it, however often stopped."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets_builders.arc_tasks import ArcTask, Pair, load_tasks
from datasets_builders.features import load_puzzles
from modeling_trm import GridProcessor, TRMConfig, TRMForGridReasoning
from modeling_trm.evaluation import evaluate_puzzles
from modeling_trm.voting import collect
from modeling_trm.voting.collect import collect_votes, model_sha256
from modeling_trm.voting.folder import chunk_path, chunks_done
from modeling_trm.voting.records import VoteRecords, load_records
from modeling_trm.voting.views import ArcViews, PuzzleViews
from tests.forked import run_forked

CANVAS = GridProcessor("arc", grid_shape=(6, 6))
QUIET = {"progress": False}


class EchoModel(TRMForGridReasoning):
    """Answers with its input; the halt logit is the input's size in cells minus 20, NaN below `nan_below` cells."""

    nan_below = 0

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.forwards_left = [10**9]  # a list, because an engine runs a shallow copy of the model

    def forward(self, input_ids: torch.Tensor, **arguments: Any) -> Any:
        output = super().forward(input_ids, **arguments)
        output.logits = torch.nn.functional.one_hot(input_ids, self.config.vocab_size).float()
        cells = (input_ids > 1).sum(dim=1).float()
        output.halt_logits = torch.where(cells < self.nan_below, torch.nan, cells - 20)
        self.forwards_left[0] -= 1
        if self.forwards_left[0] < 0:
            raise KeyboardInterrupt
        return output


def small_tasks(count: int = 5) -> list[ArcTask]:
    """Tasks whose answer is their input: what EchoModel is right about."""
    random = np.random.RandomState(1)
    tasks = []
    for number in range(count):
        grids = [random.randint(0, 10, (random.randint(1, 7), random.randint(1, 7))).astype(np.uint8) for _ in range(3)]
        tests = tuple(Pair(grid, grid) for grid in grids[1 : 2 + number % 2])
        tasks.append(ArcTask(f"t{number}", "evaluation", (Pair(grids[0], grids[0]),), tests))
    return tasks


@pytest.fixture
def echo(tiny_config) -> Callable[..., EchoModel]:
    def make(processor: GridProcessor = CANVAS) -> EchoModel:
        sizes = {"vocab_size": processor.vocab_size, "seq_len": processor.seq_len, "num_puzzles": 1, "L_cycles": 1}
        torch.manual_seed(0)
        return EchoModel(tiny_config("trm-mlp-t", **sizes)).eval()

    return make


@pytest.fixture
def views() -> ArcViews:
    return ArcViews(small_tasks(), None, CANVAS, views=9)


def assert_same(one: VoteRecords, other: VoteRecords) -> None:
    assert one.manifest == other.manifest
    assert (one.inputs, one.grids) == (other.inputs, other.grids)
    for name in ("input_of_vote", "view_of_vote", "grid_of_vote", "halt_probability"):
        assert np.array_equal(vars(one)[name], vars(other)[name]), name


def test_a_model_that_is_right_gets_only_right_votes(echo, views, tmp_path: Path) -> None:
    model = echo().train()
    assert collect_votes(model, views, tmp_path, max_steps=2, manifest={"model": "echo"}, **QUIET)
    assert model.training
    records = load_records(tmp_path)
    assert len(records) == views.views_of_input.sum()
    for number, item in enumerate(records.inputs):
        predictions, probabilities = records.of_input(number)
        assert predictions == [item.reference] * views.views_of_input[number]
        cells = sum(character != "/" for character in item.question)
        np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(20 - cells)), rtol=1e-4)
    assert {name: records.manifest[name] for name in ("task", "protocol", "max_steps", "model", "mean_steps")} == {
        "task": "arc",
        "protocol": "unstated",
        "max_steps": 2,
        "model": "echo",
        "mean_steps": 2.0,
    }


def test_real_tasks(echo, tmp_path: Path) -> None:
    tasks = [
        ArcTask(task.id, task.subset, task.train, tuple(Pair(pair.input, pair.input) for pair in task.test))
        for task in load_tasks("evaluation")[:3]
    ]
    views = ArcViews(tasks, None, GridProcessor("arc"), views=4)
    collect_votes(echo(views.processor), views, tmp_path, max_steps=1, **QUIET)
    records = load_records(tmp_path)
    assert all(set(records.of_input(n)[0]) == {item.reference} for n, item in enumerate(records.inputs))


def test_halting_at_a_half_has_two_names(echo, views, tmp_path: Path) -> None:
    model = echo()
    collect_votes(model, views, tmp_path, max_steps=3, halt=True, chunk_size=3, shard=(0, 2), **QUIET)
    assert collect_votes(model, views, tmp_path, max_steps=3, halt=0.5, chunk_size=3, shard=(1, 2), **QUIET)


def test_halting_saves_steps_and_keeps_the_answers(echo, views, tmp_path: Path) -> None:
    for halt in (False, True):
        collect_votes(echo(), views, tmp_path / str(halt), max_steps=3, halt=halt, **QUIET)
    every, halted = load_records(tmp_path / "False"), load_records(tmp_path / "True")
    assert every.manifest["mean_steps"] == 3.0
    assert 1.0 < halted.manifest["mean_steps"] < 3.0
    assert every.grids == halted.grids


def test_records_do_not_depend_on_shards_stops_or_batches(echo, views, tmp_path: Path) -> None:
    options = {"max_steps": 2, "chunk_size": 7, **QUIET}
    assert collect_votes(echo(), views, tmp_path / "whole", **options)
    whole = load_records(tmp_path / "whole")

    shards = [collect_votes(echo(), views, tmp_path / "shards", shard=(i, 3), **options) for i in range(3)]
    assert shards == [False, False, True]
    assert_same(load_records(tmp_path / "shards"), whole)

    parts = [tmp_path / f"part{i}" for i in range(2)]
    for i, part in enumerate(parts):
        collect_votes(echo(), views, part, shard=(i, 2), **options)
    assert_same(load_records(*parts), whole)

    stopped = echo()
    stopped.forwards_left[0] = 7  # two forwards a batch: in the second half of the fourth chunk
    with pytest.raises(KeyboardInterrupt):
        collect_votes(stopped, views, tmp_path / "stopped", **options)
    assert chunks_done(tmp_path / "stopped") == {0, 1, 2}
    assert [path.name for path in (tmp_path / "stopped" / "chunks").iterdir() if path.name.startswith(".")] == []
    resumed = echo()
    assert collect_votes(resumed, views, tmp_path / "stopped", shard=(0, 2), **options) is False
    assert collect_votes(resumed, views, tmp_path / "stopped", **options)
    assert_same(load_records(tmp_path / "stopped"), whole)

    collect_votes(echo(), views, tmp_path / "one", batch_size=1, **options)
    assert_same(load_records(tmp_path / "one"), whole)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from modeling_trm import GridProcessor, TRMForGridReasoning
from modeling_trm.voting import collect
from modeling_trm.voting.views import PuzzleViews
from datasets_builders.features import load_puzzles
import numpy as np
write, written = collect.write_chunk, []
def write_some(*arguments):
    if len(written) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(write(*arguments))
collect.write_chunk = write_some
views = PuzzleViews(load_puzzles("sudoku", "test").select(np.arange(4)), 5, seed=0)
collect.collect_votes(TRMForGridReasoning.from_pretrained({model!r}), views, {folder!r}, chunk_size=6, progress=False)
"""


def test_kill_9_and_resume(tiny_model, tmp_path: Path) -> None:
    processor = GridProcessor("sudoku")
    sizes = {"vocab_size": processor.vocab_size, "seq_len": processor.seq_len, "num_puzzles": 1, "L_cycles": 1}
    tiny_model("trm-mlp-t", **sizes).save_pretrained(tmp_path / "model")
    names = {"root": str(Path(__file__).parents[2]), "model": str(tmp_path / "model"), "folder": str(tmp_path / "k")}
    killed = run_forked("-c", KILLED.format(**names))
    assert killed.returncode == -signal.SIGKILL
    assert chunks_done(tmp_path / "k") == {0, 1}
    model = TRMForGridReasoning.from_pretrained(tmp_path / "model")
    views = PuzzleViews(load_puzzles("sudoku", "test").select(np.arange(4)), 5, seed=0)
    for folder in ("k", "whole"):
        assert collect_votes(model, views, tmp_path / folder, chunk_size=6, **QUIET)
    assert_same(load_records(tmp_path / "k"), load_records(tmp_path / "whole"))


def test_a_complete_evaluation_runs_nothing(echo, views, tmp_path: Path) -> None:
    model = echo()
    assert collect_votes(model, views, tmp_path, max_steps=1, **QUIET)
    model.forwards_left[0] = 0
    assert collect_votes(model, views, tmp_path, max_steps=1, **QUIET)


def test_a_folder_of_another_checkpoint_or_run_is_refused(echo, views, tmp_path: Path) -> None:
    model = echo()
    collect_votes(model, views, tmp_path, max_steps=1, **QUIET)
    fewer = ArcViews(small_tasks(), None, CANVAS, views=3)
    cases = [
        ("max_steps", {"max_steps": 2}, views),
        ("halt", {"max_steps": 1, "halt": True}, views),
        ("chunk_size", {"max_steps": 1, "chunk_size": 3}, views),
        ("num_views", {"max_steps": 1}, fewer),
        ("data_fingerprint", {"max_steps": 1}, ArcViews(small_tasks(4), None, CANVAS, views=9)),
    ]
    for field, options, other in cases:
        with pytest.raises(ValueError, match=f"begun by another evaluation: its {field} is"):
            collect_votes(model, other, tmp_path, **options, **QUIET)
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1e-3
    with pytest.raises(ValueError, match="its weights_sha256 is"):
        collect_votes(model, views, tmp_path, max_steps=1, **QUIET)


def test_the_hash_of_the_weights(tiny_model, tmp_path: Path) -> None:
    model = tiny_model("tr-mamba2attn")
    digest = model_sha256(model)
    model.save_pretrained(tmp_path)
    loaded = TRMForGridReasoning.from_pretrained(tmp_path)
    assert model_sha256(loaded) == digest
    loaded.config.L_cycles += 1  # the same weights in another recursion are another model
    assert model_sha256(loaded) != digest
    assert {"L_cycles", "num_puzzles", "block_operators"} <= TRMConfig.__annotations__.keys()


def test_nan_halt_logits_are_counted(echo, views, tmp_path: Path) -> None:
    for halt in (False, True):
        model = echo()
        model.nan_below = 10
        collect_votes(model, views, tmp_path / str(halt), max_steps=2, halt=halt, **QUIET)
        records = load_records(tmp_path / str(halt))
        small = [n for n, item in enumerate(records.inputs) if len(item.question.replace("/", "")) < 10]
        assert small
        assert records.manifest["non_finite_votes"] == views.views_of_input[small].sum()
        assert all(set(records.of_input(n)[1]) == {0.0} for n in small)
        assert np.isfinite(records.halt_probability).all()


def test_sizes_that_do_not_fit_are_named(echo, views, tmp_path: Path) -> None:
    for options, message in (
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"damping": 0.5}, "votes over views are of plain solving, without a search"),
        ({"max_steps": 0}, "max_steps=0 is not allowed; allowed: whole numbers from 1"),
        ({"chunk_size": 0}, "chunk_size must be at least 1, got 0"),
        ({"shard": (2, 2)}, r"shard=\(2, 2\) must be"),
    ):
        with pytest.raises(ValueError, match=message):
            collect_votes(echo(), views, tmp_path, **options, **QUIET)
    with pytest.raises(ValueError, match="its config has seq_len=900, but 'arc' puzzles need seq_len=36"):
        collect_votes(echo(GridProcessor("arc")), views, tmp_path, **QUIET)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("task", ["sudoku", "maze"])
def test_one_view_is_the_plain_evaluation(task: str, echo, tmp_path: Path) -> None:
    """Also of a model that is sometimes right: some of the puzzles are given with all their cells."""
    puzzles = load_puzzles(task, "test").select(np.arange(6))
    puzzles.inputs[::2] = puzzles.labels[::2]
    model = echo(puzzles.processor)
    collect_votes(model, PuzzleViews(puzzles, 1), tmp_path, max_steps=2, **QUIET)
    records = load_records(tmp_path)
    right = [records.of_input(n)[0] == [item.reference] for n, item in enumerate(records.inputs)]
    metrics = evaluate_puzzles(model, puzzles, max_steps=2, **QUIET)
    assert np.mean(right) == metrics["exact_accuracy"] == 0.5


def test_all_views_of_a_right_answer_agree(echo, tmp_path: Path) -> None:
    for task in ("sudoku", "maze"):
        puzzles = load_puzzles(task, "test").select(np.arange(2))
        puzzles.inputs[:] = puzzles.labels
        collect_votes(echo(puzzles.processor), PuzzleViews(puzzles, 8), tmp_path / task, max_steps=1, **QUIET)
        records = load_records(tmp_path / task)
        assert records.manifest["protocol"] is None
        assert all(records.of_input(n)[0] == [item.reference] * 8 for n, item in enumerate(records.inputs))


def test_each_view_runs_with_its_own_row(echo, views, tmp_path: Path, monkeypatch) -> None:
    """What solve is given: the canvas and the puzzle ids of `views.batch`, every item once."""
    seen = []

    def solve(self: EchoModel, input_ids: torch.Tensor, puzzle_ids: torch.Tensor, *how: Any) -> Any:
        seen.append((input_ids, puzzle_ids))
        return TRMForGridReasoning.solve(self, input_ids, puzzle_ids, *how)

    monkeypatch.setattr(EchoModel, "solve", solve)
    collect_votes(echo(), views, tmp_path, max_steps=1, batch_size=4, chunk_size=11, **QUIET)
    items = collect.locate_items(views.views_of_input, range(int(views.views_of_input.sum())))
    input_ids, puzzle_ids = views.batch(items)
    assert torch.equal(torch.cat([ids for ids, _ in seen]), torch.from_numpy(input_ids).long())
    assert torch.equal(torch.cat([rows for _, rows in seen]), torch.from_numpy(puzzle_ids))
    assert {len(ids) for ids, _ in seen} <= {3, 4, 1}
    assert chunk_path(tmp_path, 0).is_file()
