"""The recursion taken apart is the recursion, bit for bit; the measures are those of its states."""

from collections.abc import Callable

import pytest
import torch

from modeling_trm.configuration_trm import PRESETS
from modeling_trm.diagnostics import measures
from modeling_trm.diagnostics.observation import CYCLE, STEP, UPDATE, Observation, observe, updates
from modeling_trm.reasoning_trm import answers_from_logits
from modeling_trm.recursion_trm import cycle

STEPS = 3


@pytest.mark.parametrize("num_latents", [1, 2])
@pytest.mark.parametrize("preset", PRESETS)
@torch.no_grad()
def test_updates_are_the_recursion_bit_for_bit(
    preset: str, num_latents: int, tiny_model: Callable, tiny_batch: Callable
) -> None:
    model = tiny_model(preset, num_latents=num_latents, H_cycles=3, L_cycles=2)
    batch = tiny_batch(model.config)
    state = model.initial_state(3)
    for _ in range(STEPS):
        x = model.model.embed(batch["input_ids"], batch["puzzle_ids"], state)
        seen = list(updates(model.model.stack, state, x, 3, 2))
        assert len(seen) == 3 * (2 + (num_latents == 2))
        ends = [latents for h, l, latents in seen if l == (None if num_latents == 2 else 2)]  # noqa: E741
        expected = state
        for end in ends:
            expected = cycle(model.model.stack, expected, x, 2)
            assert _same(end, expected)
        state = model(batch["input_ids"], puzzle_ids=batch["puzzle_ids"], state=state).state
        assert _same(seen[-1][2][:2], state[:2])


def _same(one: tuple, other: tuple) -> bool:
    pairs = [(a, b) for a, b in zip(one, other) if a is not None or b is not None]
    return all(a is not None and b is not None and torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("blank", [None, 1])
@pytest.mark.parametrize("preset", PRESETS)
@torch.no_grad()
def test_steps_have_the_measures_of_the_models_own_outputs(
    preset: str, blank: int | None, tiny_model: Callable, tiny_batch: Callable
) -> None:
    model = tiny_model(preset, blank_token_id=blank)
    batch = tiny_batch(model.config)
    ids, labels = batch["input_ids"], batch["labels"]
    seen = observe(model, ids, batch["puzzle_ids"], labels, STEPS)
    free = ids == 1 if blank else torch.ones_like(ids).bool()
    scored = free & (labels > 0)
    state, answers = model.initial_state(3), ids
    logits, _ = model.read_out(state.z_H)
    for number, moment in enumerate(seen.level(STEP)):
        out = model(ids, puzzle_ids=batch["puzzle_ids"], state=state)
        new = answers_from_logits(out.logits, ids, blank)
        assert moment.step == number + 1 and torch.equal(seen.answers[number], new)
        assert torch.equal(seen.confidence[number], out.logits.double().softmax(-1).amax(-1))
        margin = measures.mean_over(measures.advantage_margin(logits, out.logits, labels), scored)
        expected = {
            "entropy": measures.mean_over(measures.entropy(out.logits), free),
            "cells_changed": (new != answers).sum(1).double(),
            "halt_probability": out.halt_logits.double().sigmoid(),
            "exact": ((new == labels) | (labels <= 0)).all(1).double(),
            "cell_accuracy": ((new == labels) & scored).sum(1) / scored.sum(1).clamp(min=1).double(),
            "advantage_margin": margin,
            "dead": (margin <= 0).double(),
            "z_H_rms": measures.rms(out.state.z_H),
            "z_H_effective_rank": measures.effective_rank(out.state.z_H),
            "z_H_distance": measures.relative_distance(out.state.z_H, state.z_H),
            "z_H_cosine": measures.cosine(out.state.z_H, state.z_H),
        }
        if state.z_L is not None:
            expected["z_L_effective_rank"] = measures.effective_rank(out.state.z_L)
            expected["z_L_distance"] = measures.relative_distance(out.state.z_L, state.z_L)
        for name, value in expected.items():
            assert torch.equal(moment.values[name], value), name
        state, answers, logits = out.state, new, out.logits


def test_levels_and_what_each_update_has(tiny_model: Callable, tiny_batch: Callable) -> None:
    model = tiny_model("trm-attn", H_cycles=2, L_cycles=3)
    batch = tiny_batch(model.config)
    seen = observe(model, batch["input_ids"], labels=batch["labels"], max_steps=2)
    numbers = [(m.step, m.H_cycle, m.L_cycle) for m in seen.level(UPDATE)]
    assert numbers == [(s, h, n) for s in (1, 2) for h in (1, 2) for n in (1, 2, 3, None)]
    assert [(m.step, m.H_cycle, m.L_cycle) for m in seen.level(CYCLE)] == [(s, h, None) for s in (1, 2) for h in (1, 2)]
    for moment in seen.level(UPDATE):
        names = set(moment.values)
        if moment.L_cycle is None:
            assert "entropy" in names and not any(name.startswith("z_L") for name in names)
        else:
            assert names == {"z_L_rms", "z_L_effective_rank", "z_L_cosine", "z_L_distance"}
    last = [seen.level(level)[-1].values for level in (UPDATE, CYCLE, STEP)]
    for name in ("entropy", "halt_probability", "exact", "z_H_effective_rank"):  # of the state, whatever came before
        assert torch.equal(last[0][name], last[1][name]) and torch.equal(last[1][name], last[2][name])
    assert not torch.equal(last[1]["z_H_distance"], last[2]["z_H_distance"])


def test_single_latent_and_no_labels(tiny_model: Callable, tiny_batch: Callable) -> None:
    model = tiny_model("tr-mamba2mlpt", num_latents=1, H_cycles=1, L_cycles=3)
    ids = tiny_batch(model.config)["input_ids"]
    seen = observe(model.train(), ids, max_steps=2)
    assert model.training  # left as it was
    assert [(m.H_cycle, m.L_cycle) for m in seen.level(UPDATE)] == [(1, 1), (1, 2), (1, 3)] * 2
    for moment in seen.moments:
        assert {"entropy", "cells_changed", "halt_probability"} <= moment.values.keys()
        assert not {"exact", "dead", "advantage_margin", "z_L_rms"} & moment.values.keys()


def test_batches_join_to_the_whole(tiny_model: Callable, tiny_batch: Callable) -> None:
    model = tiny_model("trm-attn").double()
    batch = tiny_batch(model.config, 5)
    whole = observe(model, **batch, max_steps=2)
    parts = [observe(model, **{k: v[rows] for k, v in batch.items()}, max_steps=2) for rows in (slice(3), slice(3, 5))]
    joined = Observation.join(parts)
    assert torch.equal(joined.answers, whole.answers) and len(joined.moments) == len(whole.moments)
    for one, other in zip(joined.moments, whole.moments):
        assert (one.level, one.step, one.H_cycle, one.L_cycle) == (
            other.level,
            other.step,
            other.H_cycle,
            other.L_cycle,
        )
        torch.testing.assert_close(one.values, other.values)


def test_arguments_that_are_not_allowed(tiny_model: Callable, tiny_batch: Callable) -> None:
    model = tiny_model("trm-attn")
    ids = tiny_batch(model.config)["input_ids"]
    with pytest.raises(ValueError, match="max_steps=0 must be at least 1"):
        observe(model, ids, max_steps=0)
    with pytest.raises(ValueError, match=r"made for 16 cells \(config\.seq_len\), not for 5"):
        observe(model, ids[:, :5])
    with pytest.raises(ValueError, match=r"labels has shape \[2, 16\]; allowed: \[3, 16\]"):
        observe(model, ids, labels=ids[:2])
