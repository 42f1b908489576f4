"""solve() on several trajectories: against plain solving, alone against together, and the selection rules by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from modeling_trm import PRESETS, RecursionState, TRMForGridReasoning
from modeling_trm.reasoning_config_trm import SELECTIONS
from modeling_trm.trajectories_trm import Noise, Trajectories, select
from tests.modeling.conftest import PUZZLES

STEPS = 4


@pytest.fixture
def make(tiny_model: Callable[..., TRMForGridReasoning]) -> Callable[..., TRMForGridReasoning]:
    """In float64, so that no answer hangs on the rounding of its batch; with a head that tells puzzles apart."""

    def build(preset: str, **overrides: object) -> TRMForGridReasoning:
        model = tiny_model(preset, num_puzzles=PUZZLES, **overrides).double()
        torch.nn.init.normal_(model.q_head.weight, std=0.3)
        torch.nn.init.zeros_(model.q_head.bias)
        return model

    return build


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_hand(
    model: TRMForGridReasoning,
    input_ids: Tensor,
    puzzle_ids: Tensor,
    guidance: float = 1.0,
    damping: float = 0.0,
    noise: Callable[[int, RecursionState], RecursionState] = lambda _, state: state,
) -> tuple[Tensor, Tensor, Tensor]:
    """Answers [B, L], halt logits [B] and residuals [B] after STEPS steps, one line of algebra after the other."""
    state, before = model.initial_state(len(input_ids)), None
    with torch.no_grad():
        for step in range(STEPS):
            state = noise(step, state)
            out = model(input_ids, puzzle_ids=puzzle_ids, state=state)
            logits = out.logits if before is None else (1 - guidance) * before + guidance * out.logits
            change = (out.state.z_H - state.z_H).flatten(1)
            residual = (change**2).sum(1).sqrt() / (out.state.z_H.flatten(1) ** 2).sum(1).sqrt()
            z_H = damping * state.z_H + (1 - damping) * out.state.z_H
            z_L = None if state.z_L is None else damping * state.z_L + (1 - damping) * out.state.z_L
            state, before = RecursionState(z_H, z_L), out.logits
    return logits.argmax(-1), out.halt_logits, residual


@pytest.mark.parametrize("halt", [False, True])
@pytest.mark.parametrize("preset", PRESETS)
def test_one_trajectory_without_noise_is_plain_solving(preset: str, halt: bool, make, problem) -> None:
    model = make(preset)
    plain = model.solve(*problem, max_steps=STEPS, halt=halt)
    for selection in set(SELECTIONS) - {"valid"}:
        other = model.solve(*problem, max_steps=STEPS, halt=halt, num_trajectories=1, selection=selection)
        assert torch.equal(plain.answers, other.answers) and torch.equal(plain.steps, other.steps)
        assert torch.equal(plain.halt_probability, other.halt_probability)
        assert other.trajectories is None


@pytest.mark.parametrize("latents", [1, 2])
@pytest.mark.parametrize(("guidance", "damping"), [(1.0, 0.0), (1.7, 0.0), (0.4, 0.0), (1.0, 0.3), (2.0, 0.5)])
def test_guidance_and_damping_equal_the_formulas(latents: int, guidance: float, damping: float, make, problem) -> None:
    model = make("tr-mamba2attn", num_latents=latents)
    answers, halt_logits, _ = by_hand(model, *problem, guidance, damping)
    solved = model.solve(*problem, max_steps=STEPS, guidance=guidance, damping=damping)
    assert torch.equal(solved.answers, answers)
    torch.testing.assert_close(solved.halt_probability, halt_logits.sigmoid().float(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("blank_token_id", [None, 1])
@pytest.mark.parametrize(("guidance", "damping"), [(1.0, 0.0), (2.5, 0.0), (1.0, 0.3), (2.0, 0.5)])
def test_a_model_that_reads_its_answers_reads_the_guided_ones(
    guidance: float, damping: float, blank_token_id: int | None, make, problem
) -> None:
    model = make("compact", blank_token_id=blank_token_id, halt_max_steps=STEPS, num_step_embeddings=STEPS - 1)
    ids, puzzles = problem
    state, before = model.initial_state(len(ids)), None
    with torch.no_grad():
        for step in range(STEPS):
            assert state.steps.tolist() == [step] * len(ids)
            out = model(ids, puzzle_ids=puzzles, state=state)
            logits = out.logits if before is None else (1 - guidance) * before + guidance * out.logits
            answers = logits.argmax(-1)
            answers = answers if blank_token_id is None else torch.where(ids == blank_token_id, answers, ids)
            state, before = out.state.damped(state, damping)._replace(answers=answers), out.logits
    solved = model.solve(*problem, max_steps=STEPS, guidance=guidance, damping=damping)
    assert torch.equal(solved.answers, answers)


def test_puzzles_that_stop_take_their_own_answers_and_steps_along(make, problem) -> None:
    """A compacted batch of a model that reads both equals each puzzle alone."""
    model = make("compact", halt_max_steps=STEPS, num_step_embeddings=STEPS, blank_token_id=1)
    with torch.no_grad():
        torch.nn.init.normal_(model.q_head.weight)
        first = model(problem[0], puzzle_ids=problem[1]).halt_logits.sort().values
        model.q_head.bias -= (first[PUZZLES // 2 - 1] + first[PUZZLES // 2]) / 2  # none is at the threshold
    together = model.solve(*problem, max_steps=STEPS, halt=True)
    assert len(set(together.steps.tolist())) > 1  # they stop at different steps
    for row in range(len(problem[0])):
        alone = model.solve(*(values[row : row + 1] for values in problem), max_steps=STEPS, halt=True)
        assert torch.equal(together.answers[row], alone.answers[0]) and together.steps[row] == alone.steps[0]


def test_guidance_and_damping_do_something(make, problem) -> None:
    model = make("trm-attn")
    plain = model.solve(*problem, max_steps=STEPS)
    assert not torch.equal(model.solve(*problem, max_steps=STEPS, guidance=3.0).answers, plain.answers)
    damped = model.solve(*problem, max_steps=STEPS, damping=0.5)
    assert not torch.equal(damped.halt_probability, plain.halt_probability)


@pytest.mark.parametrize(
    "options",
    [
        {"noise_std": 0.5},
        {"noise_std": 0.5, "noise_on": "z_L"},
        {"random_start": True},
        {"random_start": True, "noise_std": 0.2, "guidance": 1.5, "damping": 0.2},
    ],
    ids=str,
)
@pytest.mark.parametrize("halt", [False, True])
def test_no_answer_depends_on_the_batch(options: dict, halt: bool, make, problem) -> None:
    model = make("tr-mamba2mlpt")

    def solve(max_batch: int | None) -> Trajectories:
        solved = model.solve(
            *problem,
            max_steps=STEPS,
            halt=halt,
            num_trajectories=3,
            max_batch=max_batch,
            generator=seeded(),
            **options,
        )
        assert solved.trajectories is not None
        return solved.trajectories

    whole = solve(None)
    assert whole.answers.shape == (PUZZLES, 3, 16)
    assert len({tuple(answer.tolist()) for answer in whole.answers.flatten(0, 1)}) > PUZZLES  # they really differ
    if halt:
        assert len(set(whole.steps.flatten().tolist())) > 1
    for max_batch in (1, 2, 7, 100):
        part = solve(max_batch)
        assert torch.equal(part.answers, whole.answers) and torch.equal(part.steps, whole.steps)
        torch.testing.assert_close(part.halt_logits, whole.halt_logits, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(part.residual, whole.residual, rtol=1e-5, atol=1e-6)


def test_noise_goes_where_and_when_it_is_asked(make, problem) -> None:
    """A trajectory by hand, with the draws of a generator of the same seed."""
    model = make("trm-attn")
    seed = int(torch.randint(2**32, (PUZZLES,), generator=seeded())[2])
    ids, puzzles = (part[2:3] for part in problem)
    for latent in ("z_H", "z_L"):
        own = torch.Generator().manual_seed(seed)

        def noise(_: int, state: RecursionState, latent: str = latent, own: torch.Generator = own) -> RecursionState:
            drawn = torch.randn(state.z_H.shape[1:], generator=own)
            return state._replace(**{latent: getattr(state, latent) + 0.4 * drawn.double()})

        answers, halt_logits, _ = by_hand(model, ids, puzzles, noise=noise)
        solved = model.solve(*problem, max_steps=STEPS, noise_std=0.4, noise_on=latent, generator=seeded())
        assert torch.equal(solved.answers[2:3], answers)
        torch.testing.assert_close(solved.halt_probability[2:3], halt_logits.sigmoid().float(), rtol=1e-5, atol=1e-6)


def test_a_random_start_is_normal_and_of_the_models_scale(make) -> None:
    model = make("trm-attn", initial_state_std=0.7)
    state = Noise(torch.arange(40), torch.device("cpu")).start(model.initial_state(40), 0.7)
    for z in (state.z_H, state.z_L):
        assert z.shape == (40, model.config.num_positions, model.config.hidden_size)
        assert abs(z.mean()) < 0.02 and abs(z.std() - 0.7) < 0.02
    assert not torch.equal(state.z_H, state.z_L) and not torch.equal(state.z_H[0], state.z_H[1])


def test_the_residual_is_of_the_last_step(make, problem) -> None:
    model = make("tr-mamba2attn")
    solved = model.solve(*problem, max_steps=STEPS, num_trajectories=2, noise_std=1e-12, generator=seeded())
    _, _, residual = by_hand(model, *problem)
    torch.testing.assert_close(solved.trajectories.residual[:, 0].double(), residual, rtol=1e-5, atol=1e-6)


def test_the_seed_decides(make, problem) -> None:
    model = make("trm-attn")

    def solve(generator: torch.Generator | None) -> Tensor:
        return model.solve(*problem, max_steps=2, num_trajectories=3, noise_std=1.0, generator=generator).answers

    assert torch.equal(solve(seeded(1)), solve(seeded(1)))
    assert not torch.equal(solve(seeded(1)), solve(seeded(2)))
    torch.manual_seed(5)
    first = solve(None)
    torch.manual_seed(5)
    assert torch.equal(solve(None), first)


# --- selection, on cases by hand --------------------------------------------------------------------------------------

A, B, C = [1, 1], [2, 2], [3, 3]


def ends(answers: list[list[int]], halt: list[float], residual: list[float]) -> Trajectories:
    """One puzzle."""
    return Trajectories(
        torch.tensor([answers]), torch.tensor([halt]), torch.tensor([residual]), torch.ones(1, len(halt)).long()
    )


@pytest.mark.parametrize(
    ("selection", "answers", "halt", "residual", "expected"),
    [
        ("halt", [A, B, C], [0.1, 2.0, 1.0], [0.1, 0.2, 0.3], 1),
        ("halt", [A, B, C], [float("nan"), -2.0, -3.0], [0.1, 0.2, 0.3], 1),
        ("halt", [A, B], [1.0, 1.0], [0.1, 0.2], 0),
        ("vote", [A, B, B], [9.0, -1.0, -2.0], [0.1, 0.2, 0.3], 1),
        ("vote", [A, B, A, B], [0.0, 3.0, 0.1, -3.2], [0.1, 0.2, 0.3, 0.4], 0),  # means .51 and .50
        ("vote", [A, B, A, B], [0.0, 3.0, 0.1, -2.0], [0.1, 0.2, 0.3, 0.4], 1),  # means .51 and .54
        ("vote", [A, B, C], [0.0, 3.0, 1.0], [0.1, 0.2, 0.3], 1),
        ("residual", [A, B, C], [3.0, 2.0, 1.0], [0.3, 0.2, 0.1], 2),
        ("residual", [A, B, C], [3.0, 2.0, 1.0], [float("nan"), 0.2, 0.3], 1),
        ("valid", [A, B, C], [3.0, 1.0, 2.0], [0.1, 0.2, 0.3], 1),  # B alone is accepted
        ("valid", [A, B, B], [3.0, 1.0, 2.0], [0.1, 0.2, 0.3], 2),
        ("valid", [A, C, C], [1.0, 2.0, 3.0], [0.1, 0.2, 0.3], 2),  # none is
    ],
)
def test_selection(selection: str, answers: list, halt: list, residual: list, expected: int) -> None:
    def only_B(input_ids: Tensor, answers: Tensor) -> Tensor:
        assert input_ids.shape == answers.shape
        return (answers == 2).all(-1)

    verifier = only_B if selection == "valid" else None
    chosen = select(ends(answers, halt, residual), selection, torch.zeros(1, 2), verifier)
    assert chosen.tolist() == [expected]


def test_the_verifier_sees_each_puzzle_beside_its_own_answers() -> None:
    answers = torch.tensor([[A, B], [A, B]])
    trajectories = Trajectories(answers, torch.zeros(2, 2), torch.zeros(2, 2), torch.ones(2, 2).long())
    inputs = torch.tensor([B, A])
    chosen = select(trajectories, "valid", inputs, lambda ids, found: (ids == found).all(-1))
    assert chosen.tolist() == [1, 0]


@pytest.mark.parametrize("selection", SELECTIONS)
def test_the_answer_is_that_of_the_selected_trajectory(selection: str, make, problem) -> None:
    model = make("trm-attn")
    verifier = (lambda ids, answers: answers.sum(-1) % 2 == 0) if selection == "valid" else None
    solved = model.solve(
        *problem,
        max_steps=STEPS,
        halt=True,
        num_trajectories=4,
        noise_std=1.0,
        selection=selection,
        verifier=verifier,
        generator=seeded(),
    )
    chosen = select(solved.trajectories, selection, problem[0], verifier)
    assert len(set(chosen.tolist())) > 1
    for puzzle, choice in enumerate(chosen.tolist()):
        assert torch.equal(solved.answers[puzzle], solved.trajectories.answers[puzzle, choice])
        assert solved.steps[puzzle] == solved.trajectories.steps[puzzle, choice]
        assert solved.halt_probability[puzzle] == solved.trajectories.halt_logits[puzzle, choice].sigmoid()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_trajectories": 0}, "num_trajectories=0 is not allowed; allowed: whole numbers from 1"),
        ({"num_trajectories": 2}, "num_trajectories=2: all trajectories would be the same one; give noise_std"),
        ({"noise_std": -1.0}, "noise_std=-1.0 is not allowed"),
        ({"noise_std": float("nan")}, "noise_std=nan is not allowed"),
        ({"noise_on": "z"}, "noise_on='z' is not allowed; allowed: z_H, z_L"),
        ({"selection": "best"}, "selection='best' is not allowed; allowed: halt, vote, residual, valid"),
        ({"selection": "valid"}, "selection='valid' needs verifier"),
        ({"verifier": torch.eq}, "selection='halt' takes no verifier"),
        ({"damping": 1.0}, "damping=1.0 is not allowed"),
        ({"max_batch": 0}, "max_batch=0 is not allowed; allowed: whole numbers from 1"),
        ({"num_trajectories": 2, "noise_std": 1.0, "return_trace": True}, "return_trace is for a single trajectory"),
    ],
)
def test_arguments_that_are_not_allowed(options: dict, message: str, make, problem) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        make("trm-attn").solve(*problem, max_steps=1, **options)


def test_a_single_latent_has_no_z_L(make, problem) -> None:
    with pytest.raises(ValueError, match="noise_on='z_L': the model has a single latent"):
        make("trm-attn", num_latents=1).solve(*problem, max_steps=1, noise_std=1.0, noise_on="z_L")


def test_the_trace_goes_on_through_several_batches(make, problem) -> None:
    model = make("trm-attn")
    whole = model.solve(*problem, max_steps=STEPS, halt=True, return_trace=True).trace
    parts = model.solve(*problem, max_steps=STEPS, halt=True, return_trace=True, max_batch=2).trace
    assert len(whole) == len(parts)
    for one, other in zip(whole, parts):
        assert one.rows.tolist() == other.rows.tolist()
        assert torch.equal(one.answers, other.answers)
        torch.testing.assert_close(one.halt_probability, other.halt_probability, rtol=1e-6, atol=1e-7)


WAYS = {"valid": {"selection": "valid"}, "rules": {"certificate": "rules"}}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [Tensor.tolist, Tensor.numpy], ids=["list", "numpy"])
def test_a_verifier_may_say_it_in_a_list_or_an_array(kind: Callable, way: str, make, problem) -> None:
    model, options = make("trm-attn"), {"num_trajectories": 2, "max_steps": 2, "random_start": True, **WAYS[way]}
    found, expected = (
        model.solve(*problem, **options, generator=seeded(), verifier=verifier).answers
        for verifier in (lambda ids, answers: kind(answers[:, 0] > 2), lambda ids, answers: answers[:, 0] > 2)
    )
    assert torch.equal(found, expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("said", "named"),
    [
        (True, r"bool, torch\.bool \[\]"),
        (None, "NoneType"),
        ([0.5] * 2 * PUZZLES, r"list, torch\.float32 \[10\]"),
        (torch.ones(2), r"Tensor, torch\.float32 \[2\]"),
        (torch.ones(3, dtype=torch.bool), r"Tensor, torch\.bool \[3\]"),
        ("yes", "str"),
    ],
    ids=str,
)
def test_a_verifier_that_says_something_else_is_told_what_it_may_say(said, named: str, way: str, make, problem) -> None:
    options = {"num_trajectories": 2, "max_steps": 1, "random_start": True, **WAYS[way]}
    with pytest.raises(
        TypeError, match=rf"the verifier returned {named}; allowed: a tensor torch\.bool \[\d+\], one for"
    ):
        make("trm-attn").solve(*problem, **options, verifier=lambda ids, answers: said)
