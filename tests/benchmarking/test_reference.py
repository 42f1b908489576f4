"""The part "reference" against a stand-in for the public code that computes the published formulas (tests.oracles).

TRM_REFERENCE=/path/to/checkout runs the public code itself as well; it needs einops and pydantic.
"""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from modeling_trm import TRMForGridReasoning
from modeling_trm.benchmarking import reference, run, solving
from modeling_trm.benchmarking.settings import Settings
from tests.benchmarking.conftest import measured

pytestmark = pytest.mark.usefixtures("tiny_presets")
MakeSettings = Callable[..., Settings]
CHECKOUT = os.environ.get("TRM_REFERENCE")


def test_without_a_checkout_the_reference_is_skipped(settings: MakeSettings) -> None:
    found = measured("reference", settings())
    assert found.skipped == [{"what": "everything", "reason": "needs --reference, a checkout of the public code"}]


def test_reference_gives_the_same_logits(settings: MakeSettings, public_code: Callable[..., Path]) -> None:
    found = measured("reference", settings(reference=public_code(), presets=["trm-attn", "trm-mlp-t", "mamba2"]))
    works = [(line["work"], line["batch"], line["engine"]) for line in found.lines]
    assert works == [
        (f"one step, {preset}", batch, engine)
        for preset in ("trm-attn", "trm-mlp-t")
        for batch in (2, 3)
        for engine in ("reference", "eager")
    ]
    assert len(found.checks) == 2 and all(check["error"] < 1e-4 for check in found.checks)
    assert found.skipped[0]["what"] == "mamba2" and "cannot express this" in found.skipped[0]["reason"]
    assert found.skipped[1]["what"] == "solving with halting"


def test_another_function_than_the_reference_is_not_timed(
    settings: MakeSettings, public_code: Callable[..., Path]
) -> None:
    report: dict[str, Any] = {}
    asked = settings(reference=public_code(1.01), presets=["trm-attn"])
    assert not run.run_parts(["reference"], asked, report, lambda _: None)
    part = report["parts"]["reference"]
    assert part["lines"] == [] and [check["same"] for check in part["checks"]] == [False]


def test_the_reference_is_timed_in_its_own_type_if_that_was_asked_for(settings: MakeSettings) -> None:
    assert reference.compared_dtype(settings(dtypes=["float32", "bfloat16"])) == "bfloat16"
    assert reference.compared_dtype(settings(dtypes=["float32"])) == "float32"


def test_a_checkout_without_the_model_is_named(tmp_path: Path, public_code: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"--reference .* has no models/recursive_reasoning/trm.py"):
        reference.load_reference(tmp_path)
    folder = public_code()
    (folder / reference.FILE).write_text("import a_package_that_is_not_there\n")
    with pytest.raises(ValueError, match="its code does not import: No module named 'a_package_that_is_not_there'"):
        reference.load_reference(folder)


@pytest.fixture
def checkpoint(tiny_model: Callable[..., Any], tmp_path: Path) -> tuple[str, SimpleNamespace, torch.Tensor]:
    """A folder, six puzzles of which its model solves five in all its steps, and the steps after which it halts."""
    model = tiny_model("trm-attn", num_puzzles=1, mlp_multiple_of=256).eval()
    inputs = torch.randint(1, 6, (6, 16))
    with torch.no_grad():
        # Half of them halt at the first step; the bound lies between two logits, not on one.
        model.q_head.bias -= model(inputs).halt_logits.sort().values[2:4].mean()
    labels = model.solve(inputs, engine="eager").answers.clone()
    labels[labels == 0] = 1
    labels[4] = 5 - labels[4]
    model.save_pretrained(tmp_path / "checkpoint")
    ids = {"inputs": inputs.numpy().astype("uint8"), "labels": labels.numpy().astype("uint8"), "puzzle_ids": None}
    return str(tmp_path / "checkpoint"), SimpleNamespace(**ids), model.solve(inputs, halt=True, engine="eager").steps


def test_solving_counts_exact_answers_and_steps(
    settings: MakeSettings, public_code: Callable[..., Path], checkpoint: Any
) -> None:
    folder, puzzles, steps = checkpoint
    asked = settings(reference=public_code(), presets=[], checkpoint=folder, puzzles=puzzles, at_a_time=2)
    found = measured("reference", asked)
    theirs, ours = found.lines
    assert (theirs["engine"], ours["engine"]) == ("reference, 4 steps", "eager, halting at 0.5")
    assert (theirs["mean steps"], ours["mean steps"]) == ("4.00", f"{steps.float().mean():.2f}")
    assert 1 < steps.float().mean() < 4
    right = sum(((torch.from_numpy(puzzles.labels) != 0).all(-1)).tolist()) - 1
    assert theirs["solved"].endswith(" of 6") and 0 < int(theirs["solved"].split()[0]) <= right
    assert len(theirs["seconds"]) == len(ours["seconds"]) == 3  # a round is a chunk
    assert theirs["batch"] == 2


def test_each_puzzle_is_solved_once_and_the_warm_up_does_not_count() -> None:
    seen: list[list[int]] = []

    def solver(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(ids[:, 0].tolist())
        return ids, ids[:, 0]

    puzzles: Any = SimpleNamespace(
        inputs=torch.arange(1, 71)[:, None].numpy(), labels=torch.arange(1, 71)[:, None].numpy(), puzzle_ids=None
    )
    chunks = solving.chunks_of(puzzles, 32, torch.device("cpu"))
    assert [len(inputs) for inputs, _ in chunks] == [32, 32]
    solved = solving.Solved(solver, chunks)
    solved.first()
    for _ in chunks:
        solved()
    assert seen == [list(range(1, 33)), list(range(1, 33)), list(range(33, 65))]
    assert solved.result() == {"solved": "64 of 64", "mean steps": "32.50"}


def test_a_wrong_answer_is_none_and_padding_is_not_asked_for() -> None:
    inputs, labels = torch.tensor([[1, 2], [1, 2], [1, 2]]), torch.tensor([[1, 2], [1, 3], [1, 0]])
    solved = solving.Solved(lambda ids: (ids, torch.ones(3)), [(inputs, labels)])
    solved()
    assert solved.result()["solved"] == "2 of 3"


def test_without_a_checkpoint_the_reference_can_express(
    settings: MakeSettings, public_code: Callable[..., Path], tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    tiny_model("mamba2").save_pretrained(tmp_path / "hybrid")
    puzzles = SimpleNamespace(inputs=None, labels=None)
    asked = settings(reference=public_code(), presets=[], checkpoint=str(tmp_path / "hybrid"), puzzles=puzzles)
    skipped = measured("reference", asked).skipped[0]
    assert skipped["what"] == "solving with halting" and "cannot express this" in skipped["reason"]


@pytest.mark.skipif(not CHECKOUT, reason="needs TRM_REFERENCE, a checkout of the public code")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_public_code_itself(
    dtype: str, settings: MakeSettings, public_code: Callable[..., Path], checkpoint: Any
) -> None:
    """`public_code` only for its care of imported modules."""
    folder, puzzles, _ = checkpoint
    asked = settings(
        reference=Path(str(CHECKOUT)),
        presets=["trm-attn", "trm-mlp-t"],
        dtypes=[dtype],
        checkpoint=folder,
        puzzles=puzzles,
    )
    found = measured("reference", asked)
    assert len(found.lines) == 2 * 2 * 2 + 2
    assert all(check["same"] for check in found.checks) and len(found.checks) == 3 * (1 + (dtype == "bfloat16"))


def test_both_sides_take_one_step_of_the_whole_batch(
    settings: MakeSettings, public_code: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    run_steps, solve = reference.run_steps, TRMForGridReasoning.solve

    def theirs(model: Any, first: Any, ids: torch.Tensor, steps: int) -> Any:
        seen.append((len(ids), steps))
        return run_steps(model, first, ids, steps)

    def ours(model: Any, ids: torch.Tensor, **options: Any) -> Any:
        seen.append((len(ids), options["max_steps"]))
        return solve(model, ids, **options)

    monkeypatch.setattr(reference, "run_steps", theirs)
    monkeypatch.setattr(TRMForGridReasoning, "solve", ours)
    groups = [g for g in reference.groups(settings(reference=public_code(), presets=["trm-attn"])) if g.lines]
    seen.clear()
    for line in (line for group in groups for line in group.lines):
        line.call()
    assert seen == [(2, 1), (2, 1), (3, 1), (3, 1)]
