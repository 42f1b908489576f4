"""solve() and the pipeline with a certificate: attempts in turn until one is certain, "not sure" where none is."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from modeling_trm import GridProcessor, TRMForGridReasoning
from modeling_trm.certificates_trm import NOT_RUN, attempt_until_certain, is_certain
from modeling_trm.reasoning_config_trm import ReasoningConfig
from modeling_trm.trajectories_trm import Trajectories

PUZZLES = 6


@pytest.fixture
def model(tiny_model: Callable[..., TRMForGridReasoning]) -> TRMForGridReasoning:
    """In float64, so that no answer hangs on the rounding of its batch."""
    return tiny_model("trm-attn", num_puzzles=1).eval().double()


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(6, (PUZZLES, 16))


class Rules:
    """A verifier that accepts so many answers to each puzzle at a time; keeps how many puzzles it was asked about."""

    def __init__(self, accepts: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.accepts, self.asked = accepts, []

    def __call__(self, input_ids: Tensor, answers: Tensor) -> Tensor:
        self.asked.append(len(input_ids))
        return self.accepts(input_ids, answers)


def test_without_one_nothing_changes(model: TRMForGridReasoning, ids: Tensor) -> None:
    plain = model.solve(ids)
    assert plain.certain is None and plain.attempts is None
    certified = model.solve(ids, certificate=0.5)
    assert torch.equal(certified.answers, plain.answers)
    assert torch.equal(certified.certain, plain.halt_probability > 0.5)
    assert certified.attempts.tolist() == [1] * PUZZLES


def test_the_first_attempt_is_plain_and_the_others_are_the_trajectories_of_a_search(
    model: TRMForGridReasoning, ids: Tensor
) -> None:
    search = {"num_trajectories": 3, "random_start": True}
    nobody = Rules(lambda ids, answers: torch.zeros(len(ids), dtype=torch.bool))
    together = model.solve(ids, **search, generator=torch.Generator().manual_seed(1)).trajectories
    in_turn = model.solve(
        ids, **search, certificate="rules", verifier=nobody, generator=torch.Generator().manual_seed(1)
    )
    assert nobody.asked == [PUZZLES] * 3
    assert not in_turn.certain.any()
    assert in_turn.attempts.tolist() == [3] * PUZZLES
    assert torch.equal(in_turn.trajectories.answers[:, 0], model.solve(ids).answers)
    assert torch.equal(in_turn.trajectories.answers[:, 1:], together.answers[:, 1:])
    assert torch.equal(in_turn.trajectories.halt_logits[:, 1:], together.halt_logits[:, 1:])
    best = in_turn.trajectories.halt_logits.argmax(1)  # the guess, where none is certain
    assert torch.equal(in_turn.answers, in_turn.trajectories.answers[torch.arange(PUZZLES), best])


def test_what_is_certain_is_not_tried_again(model: TRMForGridReasoning, ids: Tensor) -> None:
    first_half = {tuple(row) for row in ids[: PUZZLES // 2].tolist()}
    rules = Rules(lambda ids, answers: torch.tensor([tuple(row) in first_half for row in ids.tolist()]))
    out = model.solve(ids, num_trajectories=2, noise_std=0.1, certificate="rules", verifier=rules, max_batch=2)
    assert rules.asked == [PUZZLES, PUZZLES // 2]
    assert out.certain.tolist() == [True] * 3 + [False] * 3
    assert out.attempts.tolist() == [1] * 3 + [2] * 3
    assert out.trajectories.steps[:3, 1].eq(NOT_RUN.steps).all()
    assert torch.equal(out.answers[:3], model.solve(ids[:3]).answers)


def test_the_attempt_that_is_certain_gives_the_answer() -> None:
    """By hand: puzzle 0 at once, puzzle 1 at the third attempt, puzzle 2 never."""
    logits = torch.tensor([[3.0, 0, 0], [0, 1.0, 3.0], [1.0, 0, float("nan")]])

    def run(rows: Tensor, k: int) -> Trajectories:
        answers = (10 * rows + k)[:, None].expand(-1, 4)
        return Trajectories(answers, logits[rows, k], torch.ones(len(rows)), torch.ones(len(rows), dtype=torch.long))

    config = ReasoningConfig(certificate=0.9)
    found = attempt_until_certain(run, lambda rows, ends: is_certain(rows, ends, torch.zeros(3, 4), config, None), 3, 3)
    assert found.certain.tolist() == [True, True, False]
    assert found.tried.tolist() == [1, 3, 3]
    assert found.ended.answers[..., 0].tolist() == [[0, 0, 0], [10, 11, 12], [20, 21, 22]]
    assert found.ended.steps.tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 1]]


def test_a_probability_near_one_is_compared_as_a_logit() -> None:
    ends = Trajectories(torch.zeros(2, 1), torch.tensor([20.0, 25.0]), torch.zeros(2), torch.zeros(2))
    config = ReasoningConfig(certificate=1 - 1e-10)  # a logit of 23; float32 probabilities are both 1
    assert is_certain(torch.arange(2), ends, torch.zeros(2, 1), config, None).tolist() == [False, True]


def test_rules_and_their_verifier_belong_together(model: TRMForGridReasoning, ids: Tensor) -> None:
    with pytest.raises(ValueError, match="with certificate='rules' needs verifier"):
        model.solve(ids, certificate="rules")
    with pytest.raises(ValueError, match=r"with certificate=0\.9 takes no verifier"):
        model.solve(ids, certificate=0.9, verifier=lambda ids, answers: ids[:, 0] > 0)


SOLVED = "1234341221434321"


def test_the_pipeline_is_not_sure_without_a_certificate(make_pipeline: Callable[..., object]) -> None:
    """A random model against the rules, in every view; a solved grid, whose clues are all kept, obeys them."""
    pipe = make_pipeline(GridProcessor("sudoku", grid_shape=(4, 4)), blank_token_id=1)
    puzzles = [SOLVED, "." * 16]
    sure, unsure = pipe(puzzles, certificate="rules", views=3)
    assert (sure["answer"], sure["certain"], sure["attempts"]) == (SOLVED, True, 1)
    assert (unsure["answer"], unsure["certain"], unsure["attempts"]) == (None, False, 3)
    assert unsure["halt_probability"] == pytest.approx(pipe(puzzles[1], views=1)["halt_probability"])
    assert "votes" not in sure


def test_the_pipeline_takes_the_first_view_that_is_certain(
    make_pipeline: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = make_pipeline(GridProcessor("sudoku", grid_shape=(4, 4)), blank_token_id=1)
    solve, seen = pipe.model.solve, []

    def second_time(input_ids: Tensor, *args: object, **how: object) -> object:
        """Rules that hold for nothing at first."""
        seen.append(len(input_ids))
        told = {**how, "verifier": how["verifier"] if len(seen) > 1 else lambda ids, answers: ids[:, 0] < 0}
        return solve(input_ids, *args, **told)

    monkeypatch.setattr(pipe.model, "solve", second_time)
    results = pipe([SOLVED, "." * 16, SOLVED], certificate="rules", views=3, batch_size=2)
    assert [(result["answer"], result["attempts"]) for result in results] == [(SOLVED, 2), (None, 3), (SOLVED, 1)]
    assert seen == [2, 2, 1, 1]
