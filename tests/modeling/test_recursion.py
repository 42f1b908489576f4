"""The recursion against its transcription: values, where the gradient stops, what is carried; for any callable."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from modeling_trm import PRESETS, RecursionState, TRMForGridReasoning
from modeling_trm.recursion_trm import cycle, recurse
from tests.oracles import recursion as oracle

SCHEDULES = [(1, 1), (1, 3), (2, 2), (3, 4)]


@pytest.fixture
def weight() -> Tensor:
    return torch.randn(5, 5, dtype=torch.float64).requires_grad_()


@pytest.fixture
def stack(weight: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda h: torch.tanh(h @ weight)


def start(num_latents: int) -> tuple[RecursionState, Tensor]:
    x, z_H, z_L = (torch.randn(2, 3, 5, dtype=torch.float64).requires_grad_() for _ in range(3))
    return RecursionState(z_H, z_L if num_latents == 2 else None), x


def oracle_step(stack: Callable[[Tensor], Tensor], state: RecursionState, x: Tensor, H: int, L: int, cut: bool = True):
    if state.z_L is None:
        return oracle.one_latent(stack, state.z_H, x, H, L, cut)
    return oracle.two_latents(stack, state.z_H, state.z_L, x, H, L, cut)


def latents(state) -> list[Tensor]:
    return [z for z in state if z is not None]


def total(state) -> Tensor:
    """A scalar in which every entry of every latent has a weight of its own."""
    flat = torch.cat([z.flatten() for z in latents(state)])
    return (flat * torch.linspace(-1, 2, len(flat), dtype=flat.dtype)).sum()


@pytest.mark.parametrize("num_latents", [1, 2])
@pytest.mark.parametrize(("H", "L"), SCHEDULES)
def test_values_and_gradients_equal_the_transcription(stack, weight: Tensor, H: int, L: int, num_latents: int) -> None:
    state, x = start(num_latents)
    actual, expected = recurse(stack, state, x, H, L), oracle_step(stack, state, x, H, L)
    assert (actual.z_L is None) == (num_latents == 1)
    for ours, theirs in zip(latents(actual), latents(expected)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)
    # With one cycle the start is inside the gradient; before earlier cycles it is cut off on both sides.
    leaves = [weight, x, *latents(state)]
    ours = torch.autograd.grad(total(actual), leaves, allow_unused=True)
    theirs = torch.autograd.grad(total(expected), leaves, allow_unused=True)
    for a, b in zip(ours, theirs):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert (ours[2] is None) == (H > 1)


@pytest.mark.parametrize("num_latents", [1, 2])
def test_the_cut_matters(stack, weight: Tensor, num_latents: int) -> None:
    """The gradient through all cycles is another one, so the test above would notice a missing cut."""
    state, x = start(num_latents)
    ours = torch.autograd.grad(total(recurse(stack, state, x, 3, 2)), weight)[0]
    through_all = torch.autograd.grad(total(oracle_step(stack, state, x, 3, 2, cut=False)), weight)[0]
    assert (ours - through_all).abs().max() > 1e-3 * through_all.abs().max()


@pytest.mark.parametrize("num_latents", [1, 2])
def test_three_cycles_equal_three_carried_steps_of_one_cycle(stack, weight: Tensor, num_latents: int) -> None:
    state, x = start(num_latents)
    at_once, carried = recurse(stack, state, x, 3, 2), state
    for _ in range(3):
        carried = recurse(stack, carried.detach(), x, 1, 2)
    for ours, theirs in zip(latents(at_once), latents(carried)):
        assert torch.equal(ours, theirs)
    for a, b in zip(torch.autograd.grad(total(at_once), (weight, x)), torch.autograd.grad(total(carried), (weight, x))):
        assert torch.equal(a, b)


@pytest.mark.parametrize("num_latents", [1, 2])
def test_gradient_is_on_for_the_last_cycle_only(num_latents: int) -> None:
    grad_on = []

    def stack(h: Tensor) -> Tensor:
        grad_on.append(torch.is_grad_enabled())
        return h / 2

    state, x = start(num_latents)
    recurse(stack, state, x, 3, 4)
    calls_a_cycle = 4 + (num_latents == 2)
    assert grad_on == [False] * 2 * calls_a_cycle + [True] * calls_a_cycle


@pytest.mark.parametrize("num_latents", [1, 2])
def test_inputs_are_not_mutated(stack, num_latents: int) -> None:
    state, x = start(num_latents)
    before = [t.detach().clone() for t in (x, *latents(state))]
    recurse(stack, state, x, 2, 2)
    cycle(stack, state, x, 2)
    for t, copy in zip((x, *latents(state)), before):
        assert torch.equal(t, copy)


@pytest.mark.parametrize("num_latents", [1, 2])
def test_state_detach_select_and_where(num_latents: int) -> None:
    state = RecursionState(*(recurse(torch.tanh, *start(num_latents), 1, 1)))
    other = state.map(lambda z: z + 1)
    assert all(z.requires_grad for z in latents(state))
    assert not any(z.requires_grad for z in latents(state.detach()))
    mask = torch.tensor([True, False])
    for z, kept, row in zip(latents(state), latents(state.select(mask)), latents(state.select(torch.tensor([1])))):
        assert torch.equal(kept, z[:1])
        assert torch.equal(row, z[1:])
    for z, mixed in zip(latents(state), latents(state.where(mask, other))):
        assert torch.equal(mixed, torch.stack([z[0], z[1] + 1]))
    assert (state.where(mask, other).z_L is None) == (num_latents == 1)


@pytest.mark.parametrize("num_latents", [1, 2])
@pytest.mark.parametrize("preset", PRESETS)
def test_under_bf16_autocast_every_parameter_gets_its_gradient(
    preset: str, num_latents: int, tiny_model, tiny_batch
) -> None:
    """Weights that autocast casts inside no_grad are cached without history; the last cycle must not use those."""
    # Few passes: untrained, Mamba-3 multiplies a rounding with each.
    model: TRMForGridReasoning = tiny_model(preset, num_latents=num_latents, H_cycles=2, L_cycles=1)
    batch = tiny_batch(model.config, 8)
    found = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = model(**batch).loss
        loss.backward()
        found.append({name: p.grad.to_dense() for name, p in model.named_parameters()})
    for name, gradient in found[1].items():
        assert gradient.isfinite().all(), name
        assert gradient.abs().max() > 0, name
    wide, narrow = (torch.cat([gradient.flatten() for gradient in gradients.values()]) for gradients in found)
    # Rounding to 8 bits in every call turns the whole gradient of a tiny model by up to 26 degrees, of the draws seen.
    assert torch.cosine_similarity(narrow, wide, dim=0) > 0.8


@pytest.mark.parametrize("num_latents", [1, 2])
def test_cast_weights_are_forgotten_before_each_part(num_latents: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older PyTorch caches a cast made without gradient (pytorch issue 112583); newer ones do not."""
    events = []
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: events.append("clear"))

    def stack(h: Tensor) -> Tensor:
        events.append("with gradient" if torch.is_grad_enabled() else "without")
        return h / 2

    recurse(stack, *start(num_latents), 2, 1)
    calls_a_cycle = num_latents
    assert events == ["clear", *["without"] * calls_a_cycle, "clear", *["with gradient"] * calls_a_cycle]


def test_a_second_step_inside_one_autocast_block_sees_updated_weights(tiny_model, tiny_batch) -> None:
    model: TRMForGridReasoning = tiny_model("trm-attn")
    batch = tiny_batch(model.config)
    with torch.autocast("cpu", torch.bfloat16):
        model(**batch).loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5)
        inside = model(**batch).logits
    with torch.autocast("cpu", torch.bfloat16):
        afresh = model(**batch).logits
    assert torch.equal(inside, afresh)
