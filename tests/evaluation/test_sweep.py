"""The sweep: every row against a solve() of just that setting."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets_builders.features import PuzzleSet, load_puzzles
from modeling_trm import TRMForGridReasoning
from modeling_trm.evaluation.sweep import ANY, PLAIN, Sweep, run_sweep
from modeling_trm.evaluation.sweep_plots import plot_sweep
from modeling_trm.trajectories_trm import Trajectories, select
from modeling_trm.utils.intervals import wilson_interval
from modeling_trm.utils.loading import load_model
from modeling_trm.verifiers_trm import verifier_for
from modeling_trm.views_trm import draw_view
from tests.conftest import IMAGE

COUNT, SEED = 8, 3


@pytest.fixture(scope="module")
def model() -> TRMForGridReasoning:
    return load_model(str(IMAGE)).double()  # so that no answer hangs on the rounding of its batch


@pytest.fixture(scope="module")
def puzzles() -> PuzzleSet:
    """Easy ones and others in turn."""
    everything = load_puzzles("sudoku", "test")
    return everything.select(np.linspace(0, len(everything) - 1, COUNT).astype(int))


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return Sweep(
        (4, 2), trajectories=(1, 3), noise_std=0.9, seed=SEED, selections=("halt", "vote", "residual", "valid")
    )


@pytest.fixture(scope="module")
def rows(model: TRMForGridReasoning, puzzles: PuzzleSet, sweep: Sweep) -> list[dict]:
    return run_sweep(model, puzzles, sweep, verifier=verifier_for("sudoku", (9, 9)), batch_size=5, progress=False)


def solved(model: TRMForGridReasoning, puzzles: PuzzleSet, **options: object) -> int:
    answers = model.solve(torch.tensor(puzzles.inputs).long(), halt=False, **options).answers
    return int((answers == torch.tensor(puzzles.labels)).all(1).sum())


def test_rows_are_complete(rows: list[dict], sweep: Sweep) -> None:
    keys = {(row["steps"], row["trajectories"], row["selection"]) for row in rows}
    names = (*sweep.selections, ANY)
    assert keys == {(s, 1, PLAIN) for s in sweep.steps} | {
        (s, k, name) for s in sweep.steps for k in sweep.trajectories for name in names
    }
    for row in rows:
        assert row["count"] == COUNT and row["steps_a_puzzle"] == row["steps"] * row["trajectories"]
        assert row["exact_accuracy"] == row["solved"] / COUNT
        assert row["ci95"] == wilson_interval(row["solved"], COUNT)


def test_every_row_is_that_of_a_solve_of_its_own(model, puzzles, sweep, rows) -> None:
    """The noise of trajectory k of a puzzle hangs on K; so only the largest K is drawn alike in a run of its own."""
    for row in rows:
        steps, K = row["steps"], row["trajectories"]
        if row["selection"] == PLAIN:
            assert row["solved"] == solved(model, puzzles, max_steps=steps)
        elif row["selection"] != ANY and max(sweep.trajectories) == K:
            verifier = verifier_for("sudoku", (9, 9)) if row["selection"] == "valid" else None
            assert row["solved"] == solved(
                model,
                puzzles,
                max_steps=steps,
                num_trajectories=K,
                noise_std=sweep.noise_std,
                selection=row["selection"],
                verifier=verifier,
                generator=torch.Generator().manual_seed(sweep.seed),
            ), row


def test_no_choice_beats_any_and_the_rules_reach_it(rows: list[dict]) -> None:
    by_key = {(row["steps"], row["trajectories"], row["selection"]): row["solved"] for row in rows}
    for (steps, K, selection), right in by_key.items():
        if selection not in (PLAIN, ANY):
            assert right <= by_key[steps, K, ANY]
        if selection == "valid":  # a Sudoku has one solution
            assert right == by_key[steps, K, ANY]
    assert by_key[2, 3, ANY] > max(by_key[2, 1, ANY], by_key[2, 3, "halt"])  # else the test shows nothing


def test_the_batch_changes_nothing(model, puzzles, sweep, rows) -> None:
    other = run_sweep(model, puzzles, sweep, verifier=verifier_for("sudoku", (9, 9)), batch_size=3, progress=False)
    assert other == rows


@pytest.mark.usefixtures("whole_pictures")
def test_plot(rows: list[dict], tmp_path: Path) -> None:
    """The kind of breadth is written into the picture, so another one is another picture."""
    paths = [plot_sweep(rows, tmp_path / f"{word}.png", "title", word) for word in ("noise", "views")]
    contents = [path.read_bytes() for path in paths]
    assert all(content.startswith(b"\x89PNG") and len(content) > 10_000 for content in contents)
    assert contents[0] != contents[1]


@pytest.fixture(scope="module")
def view_rows(model: TRMForGridReasoning, puzzles: PuzzleSet) -> dict[tuple[int, int, str], int]:
    sweep = Sweep((2, 1), views=(1, 3), seed=4, selections=("halt", "vote", "residual", "valid"))
    rows = run_sweep(model, puzzles, sweep, verifier=verifier_for("sudoku", (9, 9)), batch_size=3, progress=False)
    return {(row["steps"], row["trajectories"], row["selection"]): row["solved"] for row in rows}


def test_one_view_is_the_puzzle_as_it_is(view_rows) -> None:
    for steps in (2, 1):
        plain = view_rows[steps, 1, PLAIN]
        assert all(view_rows[steps, 1, name] == plain for name in ("halt", "vote", "residual", "valid", ANY))


def test_views_are_relabelled_solved_and_undone(model, puzzles, view_rows) -> None:
    """Against each view of each puzzle solved by hand."""
    steps, K = 2, 3
    right = dict.fromkeys(("halt", "vote", "residual", "valid", ANY), 0)
    for number, (ids, label) in enumerate(zip(puzzles.inputs, puzzles.labels)):
        views = [draw_view("sudoku", (9, 9), 4, number, view) for view in range(K)]
        moved = torch.tensor(np.stack([view.apply(ids) for view in views])).long()
        solved = model.solve(moved, max_steps=steps, halt=False, return_trace=True)
        back = [view.undo(answer) for view, answer in zip(views, solved.answers.numpy())]
        answers = torch.tensor(np.stack(back))
        last = solved.trace[-1]
        ended = Trajectories(answers[None], solved.halt_probability.logit()[None], last.residual[None], None)
        exact = (answers == torch.tensor(label)).all(1)
        right[ANY] += int(exact.any())
        for name in ("halt", "vote", "residual", "valid"):
            verifier = verifier_for("sudoku", (9, 9)) if name == "valid" else None
            right[name] += int(exact[select(ended, name, torch.tensor(ids)[None].long(), verifier)[0]])
    assert right == {name: view_rows[steps, K, name] for name in right}
    assert view_rows[steps, K, ANY] > view_rows[steps, 1, PLAIN]  # else the test shows nothing


def test_views_of_mazes_end(tiny_model) -> None:
    mazes = load_puzzles("maze", "test").select(np.arange(2))
    model = tiny_model("trm-attn", vocab_size=6, seq_len=900, H_cycles=1, L_cycles=1, num_puzzles=1)
    rows = run_sweep(model, mazes, Sweep((1,), views=(8, 1)), progress=False)
    assert {row["trajectories"] for row in rows} == {1, 8}
    with pytest.raises(ValueError, match=r"views=\[2, 9\] is not allowed; a maze of 30 x 30 has 8 views"):
        run_sweep(model, mazes, Sweep((1,), views=(2, 9)))


def test_the_kind_of_breadth_in_words() -> None:
    noisy = {"noise_std": 0.3, "noise_on": "z_L"}
    assert Sweep((1,), (1,), **noisy).breadth == "noise 0.3 on z_L"
    assert Sweep((1,), (1,), random_start=True).breadth == "random starts"
    assert Sweep((1,), (1,), **noisy, random_start=True).breadth == "noise 0.3 on z_L and random starts"
    assert Sweep((1,), views=(1,)).breadth == "relabelled views"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sweep((), (1,)), r"steps=\[\] is not allowed; allowed: distinct numbers from 1"),
        (lambda: Sweep((1,), (2, 2)), r"trajectories=\[2, 2\] is not allowed"),
        (lambda: Sweep((0,), (1,)), r"steps=\[0\] is not allowed"),
        (lambda: Sweep((1,), noise_std=1.0, views=(2,)), "views excludes trajectories, noise_std and random_start"),
        (lambda: Sweep((1,), (1,), (2,)), "views excludes trajectories"),
        (lambda: Sweep((1,), (1,), selections=("best",)), "selections holds 'best'; allowed: halt, vote"),
    ],
)
def test_settings_that_are_not_allowed(make: Callable[[], Sweep], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_rules_need_a_verifier(model, puzzles) -> None:
    with pytest.raises(ValueError, match="'valid' and a verifier belong together"):
        run_sweep(model, puzzles, Sweep((1,), (2,), noise_std=1.0, selections=("valid",)))
