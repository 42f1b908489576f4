"""solve(): against a loop by hand, and halting with a compacted batch against every puzzle on its own."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from modeling_trm import PRESETS, SolveOutput, TRMForGridReasoning

PUZZLES = 8
MAX_STEPS = 6


@pytest.fixture
def problem() -> tuple[Tensor, Tensor]:
    """input_ids [8, 16] and puzzle_ids [8], no two alike: a stack of Mamba-2 alone halts by the puzzle id."""
    return torch.randint(6, (PUZZLES, 16)), torch.arange(PUZZLES)


@pytest.fixture
def make(tiny_model: Callable[..., TRMForGridReasoning]) -> Callable[..., TRMForGridReasoning]:
    """make(preset, **overrides): a tiny model with a puzzle id for each of the puzzles."""
    return lambda preset, **overrides: tiny_model(preset, num_puzzles=PUZZLES, **overrides)


def by_hand(
    model: TRMForGridReasoning, input_ids: Tensor, puzzle_ids: Tensor | None, steps: int
) -> list[tuple[Tensor, Tensor]]:
    """(answers [B, L], halt logits [B]) after each of the steps."""
    state, seen = None, []
    with torch.no_grad():
        for _ in range(steps):
            out = model(input_ids, puzzle_ids=puzzle_ids, state=state)
            state = out.state
            seen.append((out.logits.argmax(-1), out.halt_logits))
    return seen


def with_halting(model: TRMForGridReasoning, input_ids: Tensor, puzzle_ids: Tensor) -> TRMForGridReasoning:
    """Moves the halting bias to where the puzzles stop at the most different steps, some of them never."""
    with torch.no_grad():
        model.q_head.bias.zero_()
        logits_SB = torch.stack([halt for _, halt in by_hand(model, input_ids, puzzle_ids, MAX_STEPS)])

        def first_steps(threshold: Tensor) -> set[int]:
            above = torch.cat([logits_SB > threshold, torch.ones(1, PUZZLES, dtype=torch.bool)])
            return set(above.int().argmax(0).tolist())

        thresholds = logits_SB.flatten().sort().values
        between = (thresholds[1:] + thresholds[:-1]) / 2  # no puzzle sits on the threshold
        model.q_head.bias.fill_(-max(between, key=lambda t: len(first_steps(t))))
    return model


@pytest.fixture
def halting_model(make, problem) -> Callable[[str], TRMForGridReasoning]:
    """In float64, so that a puzzle's answer does not hang on the rounding of its batch."""
    return lambda preset, **overrides: with_halting(make(preset, **overrides).double(), *problem)


def alone(model: TRMForGridReasoning, input_ids: Tensor, puzzle_ids: Tensor) -> SolveOutput:
    """Each puzzle by itself, until its halt logit is positive."""
    rows = []
    for ids, puzzle in zip(input_ids, puzzle_ids):
        seen = by_hand(model, ids[None], puzzle[None], MAX_STEPS)
        step = next((step for step, (_, halt) in enumerate(seen, start=1) if halt > 0), MAX_STEPS)
        answer, halt = seen[step - 1]
        rows.append((answer[0], halt[0].sigmoid(), torch.tensor(step)))
    answers, probability, steps = (torch.stack(column) for column in zip(*rows))
    return SolveOutput(answers, probability, steps, None)


def assert_same(actual: SolveOutput, expected: SolveOutput) -> None:
    assert actual.steps.tolist() == expected.steps.tolist()
    assert torch.equal(actual.answers, expected.answers)
    # The probability is handed out in float32; the batch's size changes the last bits of a sum.
    torch.testing.assert_close(
        actual.halt_probability.double(), expected.halt_probability.double(), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_fixed_steps_equal_a_loop_by_hand(preset: str, make, problem) -> None:
    model = make(preset)
    answers, halt_logits = by_hand(model, *problem, 5)[-1]
    solved = model.solve(*problem, max_steps=5, engine="eager")
    assert torch.equal(solved.answers, answers)
    assert torch.equal(solved.halt_probability, halt_logits.sigmoid())
    assert solved.steps.tolist() == [5] * PUZZLES
    assert solved.trace is None


@pytest.mark.parametrize("preset", PRESETS)
def test_halting_equals_every_puzzle_alone(preset: str, halting_model, problem) -> None:
    model = halting_model(preset)
    expected = alone(model, *problem)
    assert len(set(expected.steps.tolist())) >= 2  # the test has something to compact
    assert_same(model.solve(*problem, max_steps=MAX_STEPS, halt=True), expected)


def test_halting_with_one_latent_equals_every_puzzle_alone(halting_model, problem) -> None:
    model = halting_model("tr-mamba2attn", num_latents=1)
    assert_same(model.solve(*problem, max_steps=MAX_STEPS, halt=True), alone(model, *problem))


def test_halting_does_not_depend_on_the_company(halting_model, problem) -> None:
    model, (ids, puzzles) = halting_model("tr-mamba2mlpt"), problem
    whole = model.solve(ids, puzzles, max_steps=MAX_STEPS, halt=True)
    for rows in (torch.randperm(PUZZLES), torch.tensor([7]), torch.tensor([2, 2, 5]), torch.arange(0, PUZZLES, 3)):
        part = model.solve(ids[rows], puzzles[rows], max_steps=MAX_STEPS, halt=True)
        assert_same(part, SolveOutput(whole.answers[rows], whole.halt_probability[rows], whole.steps[rows], None))


def test_the_stack_runs_only_for_puzzles_that_still_run(
    halting_model, problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = halting_model("trm-attn")
    sizes: list[int] = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda ids, **rest: (sizes.append(len(ids)), forward(ids, **rest))[1])
    steps = model.solve(*problem, max_steps=MAX_STEPS, halt=True).steps
    assert sizes == [int((steps >= step).sum()) for step in range(1, int(steps.max()) + 1)]


@pytest.mark.parametrize(("bias", "steps"), [(1e3, 1), (-1e3, MAX_STEPS)])
def test_all_halt_at_once_or_never(bias: float, steps: int, make, problem) -> None:
    model = make("trm-attn")
    with torch.no_grad():
        model.q_head.bias.fill_(bias)
    solved = model.solve(*problem, max_steps=MAX_STEPS, halt=True)
    assert solved.steps.tolist() == [steps] * PUZZLES
    assert torch.equal(solved.answers, by_hand(model, *problem, steps)[-1][0])


def test_a_halt_logit_of_exactly_zero_does_not_halt(make, problem) -> None:
    """method: halt when the logit is greater than 0."""
    model = make("trm-attn")
    with torch.no_grad():
        model.q_head.weight.zero_()
        model.q_head.bias.zero_()
    solved = model.solve(*problem, max_steps=3, halt=True)
    assert solved.steps.tolist() == [3] * PUZZLES
    assert solved.halt_probability.tolist() == [0.5] * PUZZLES


@pytest.mark.parametrize("probability", [0.02, 0.3, 0.97])
def test_halting_at_a_probability(probability: float, halting_model, problem) -> None:
    """The first step above it, in the trace of a run that never stops."""
    model, (ids, puzzles) = halting_model("trm-attn"), problem
    logit = math.log(probability / (1 - probability))
    with torch.no_grad():
        trace = model.solve(ids, puzzles, return_trace=True, engine="eager").trace
        logits = torch.stack([step.halt_logits for step in trace]).flatten().sort().values
        middle = len(logits) // 2
        model.q_head.bias += logit - logits[middle - 1 : middle + 1].mean()  # half of all steps are above
    trace = model.solve(ids, puzzles, return_trace=True, engine="eager").trace
    above_BS = torch.stack([step.halt_probability for step in trace], dim=1) > probability
    expected = torch.where(above_BS.any(1), above_BS.int().argmax(1) + 1, len(trace))
    assert len(expected.unique()) > 1
    assert torch.equal(model.solve(ids, puzzles, halt=probability, engine="eager").steps, expected)


@pytest.mark.parametrize("halt", [0, 1, 1.5, -0.1, float("nan")])
def test_a_halt_probability_must_be_between_0_and_1(halt: float, make, problem) -> None:
    with pytest.raises(ValueError, match=f"halt={halt} is not allowed; allowed: True, False, or a probability"):
        make("trm-attn").solve(*problem, halt=halt)


def test_only_the_first_output_of_the_head_decides(halting_model, problem) -> None:
    model = halting_model("trm-attn")
    before = model.solve(*problem, max_steps=MAX_STEPS, halt=True)
    with torch.no_grad():
        model.q_head.weight[1] = 100
        model.q_head.bias[1] = 100
    assert_same(model.solve(*problem, max_steps=MAX_STEPS, halt=True), before)


@pytest.mark.parametrize("halt", [False, True])
@pytest.mark.parametrize("blank_token_id", [None, 1])
def test_trace_shows_every_step_of_the_puzzles_still_running(
    blank_token_id: int | None, halt: bool, halting_model, problem
) -> None:
    model, (ids, _) = halting_model("trm-attn", blank_token_id=blank_token_id), problem
    solved = model.solve(*problem, max_steps=MAX_STEPS, halt=halt, return_trace=True)
    assert len(solved.trace) == int(solved.steps.max())
    whole = by_hand(model, *problem, MAX_STEPS)
    for step, (traced, (answers, halt_logits)) in enumerate(zip(solved.trace, whole), start=1):
        assert traced.rows.tolist() == [i for i in range(PUZZLES) if solved.steps[i] >= step]
        expected = answers if blank_token_id is None else torch.where(ids == blank_token_id, answers, ids)
        assert torch.equal(traced.answers, expected[traced.rows])
        torch.testing.assert_close(
            traced.halt_probability.double(), halt_logits[traced.rows].sigmoid(), rtol=1e-6, atol=1e-7
        )
    last = {int(row): answer for traced in solved.trace for row, answer in zip(traced.rows, traced.answers)}
    assert torch.equal(torch.stack([last[i] for i in range(PUZZLES)]), solved.answers)


@pytest.mark.parametrize("halt", [False, True])
def test_given_cells_are_kept_when_a_blank_token_is_set(halt: bool, halting_model, problem) -> None:
    model, (ids, puzzles) = halting_model("trm-attn"), problem
    everywhere = model.solve(ids, puzzles, max_steps=MAX_STEPS, halt=halt)
    model.config.blank_token_id = 1
    kept = model.solve(ids, puzzles, max_steps=MAX_STEPS, halt=halt)
    assert torch.equal(kept.answers, torch.where(ids == 1, everywhere.answers, ids))
    assert (everywhere.answers != kept.answers).any()
    assert torch.equal(kept.steps, everywhere.steps)


def test_defaults_are_the_configs_steps_and_no_halting(make, problem) -> None:
    model = make("trm-attn")
    assert model.solve(problem[0]).steps.tolist() == [model.config.halt_max_steps] * PUZZLES
    more = model.config.halt_max_steps + 5
    assert model.solve(problem[0], max_steps=more).steps.tolist() == [more] * PUZZLES


@pytest.mark.parametrize("max_steps", [0, -1])
def test_no_steps_are_refused(max_steps: int, make, problem) -> None:
    with pytest.raises(ValueError, match=f"max_steps={max_steps} is not allowed; allowed: whole numbers from 1"):
        make("trm-attn").solve(*problem, max_steps=max_steps)


def test_a_grid_of_another_size_is_refused(make) -> None:
    with pytest.raises(ValueError, match="seq_len"):
        make("trm-mlp-t").solve(torch.zeros(2, 81, dtype=torch.long))


@pytest.mark.parametrize("batch_size", [0, 1])
@pytest.mark.parametrize("halt", [False, True])
def test_batches_of_one_and_none(halt: bool, batch_size: int, make) -> None:
    solved = make("tr-mamba2mlpt").solve(torch.zeros(batch_size, 16, dtype=torch.long), halt=halt)
    assert solved.answers.shape == (batch_size, 16)
    assert solved.steps.shape == solved.halt_probability.shape == (batch_size,)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_input_is_not_mutated_and_may_be_int32(dtype: torch.dtype, halting_model, problem) -> None:
    model, ids = halting_model("trm-attn"), problem[0].to(dtype)
    before = {name: value.clone() for name, value in {**model.state_dict(), "ids": ids, "puzzles": problem[1]}.items()}
    solved = model.solve(ids, problem[1], max_steps=MAX_STEPS, halt=True, return_trace=True)
    assert_same(solved, model.solve(*problem, max_steps=MAX_STEPS, halt=True))
    assert solved.answers.dtype == torch.int64
    for name, value in {**model.state_dict(), "ids": ids, "puzzles": problem[1]}.items():
        assert torch.equal(value, before[name]), name


def test_answers_may_enter_a_later_computation_with_gradients(make, problem) -> None:
    model = make("trm-attn")
    answers = model.solve(*problem).answers
    assert all(p.grad is None for p in model.parameters())
    model(answers, labels=answers).loss.backward()
    assert model.lm_head.weight.grad is not None


def test_solving_leaves_the_training_mode_and_the_random_state_alone(make, problem) -> None:
    model = make("trm-attn").train()
    before = torch.get_rng_state()
    model.solve(*problem, halt=True)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()


def test_text_instead_of_token_ids_is_answered_with_what_makes_them(tiny_model) -> None:
    model = tiny_model("trm-attn")
    for call in (model.solve, model):
        with pytest.raises(TypeError, match=r"of type str, not a tensor of token ids .*; the processor makes them"):
            call("53..7....6..195..")


def test_outputs_as_transformers_users_ask_for_them(tiny_model) -> None:
    model = tiny_model("trm-attn").eval()
    ids = torch.randint(model.config.vocab_size, (2, model.config.seq_len))
    output, plain = model(ids, return_dict=True), model(ids, return_dict=False)
    assert isinstance(plain, tuple) and len(plain) == 3  # no loss without labels
    assert torch.equal(plain[0], output.logits) and torch.equal(plain[1], output.halt_logits)
    with pytest.raises(ValueError, match=r"no hidden states layer by layer; its latents .* output.state.z_H"):
        model(ids, output_hidden_states=True)
