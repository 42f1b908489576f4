"""The ACT slots against a transcription that keeps every slot apart (arXiv 2510.04871, public code)."""

import numpy as np
import pytest
import torch

from modeling_trm.training.slots import exploration
from tests.training.frozen import SEED, B, frozen_step

STEPS = 14


@pytest.mark.parametrize("num_latents", [1, 2])
@pytest.mark.parametrize("release_when", ["halted", "exact"])
@pytest.mark.parametrize(("accumulation", "halt_exploration"), [(1, 0.0), (3, 0.6)])
def test_slots_follow_the_transcription(release_when, accumulation, halt_exploration, num_latents):
    step = frozen_step(
        {"num_latents": num_latents},
        release_when=release_when,
        gradient_accumulation=accumulation,
        halt_exploration=halt_exploration,
    )
    model, config, stream = step.model, step.model.config, step.buckets[0].feed.stream
    naive = [{"row": None, "steps": 0, "state": None, "released": True} for _ in range(B)]
    releases = 0
    for number in range(1, STEPS + 1):
        tallies = step(number)
        minimum = exploration(SEED, number, np.arange(B), halt_exploration, config.halt_max_steps)
        for slot, mine in enumerate(naive):
            if mine["released"]:
                mine |= {"row": (number - 1) * B + slot, "steps": 0, "state": None}
            row = stream.rows(np.array([mine["row"]]), reveal=0.95)
            inputs, labels = (torch.from_numpy(row[name]).long() for name in ("inputs", "labels"))
            with torch.no_grad():
                out = model(inputs, state=mine["state"])
            exact, halted = bool((out.logits.argmax(-1) == labels).all()), bool(out.halt_logits > 0)
            mine["state"], mine["steps"] = out.state, mine["steps"] + 1
            done = exact if release_when == "exact" else halted
            mine["released"] = (done and mine["steps"] >= minimum[slot]) or mine["steps"] >= config.halt_max_steps
            releases += mine["released"]
            assert torch.equal(step.buckets[0].slots.inputs[slot], inputs[0])
            assert torch.equal(step.buckets[0].slots.labels[slot], labels[0])
            torch.testing.assert_close(
                step.buckets[0].slots.state.z_H[slot], mine["state"].z_H[0], atol=1e-5, rtol=1e-5
            )
        assert step.buckets[0].slots.steps.tolist() == [mine["steps"] for mine in naive]
        assert step.buckets[0].slots.released.tolist() == [mine["released"] for mine in naive]
        assert tallies["released"].item() == sum(mine["released"] for mine in naive)
    step.buckets[0].feed.close()
    assert releases > B  # the run has seen slots refilled


def test_exploration_is_a_function_of_step_and_slot():
    everyone = exploration(1, 7, np.arange(64), 0.5, 16)
    assert np.array_equal(exploration(1, 7, np.arange(32, 64), 0.5, 16), everyone[32:])
    assert not np.array_equal(exploration(1, 8, np.arange(64), 0.5, 16), everyone)
    many = np.concatenate([exploration(0, step, np.arange(100), 0.1, 16) for step in range(200)])
    assert set(np.unique(many)) == {0, *range(2, 17)}
    assert abs((many > 0).mean() - 0.1) < 0.01  # 20,000 draws: 5 standard deviations
    assert (exploration(0, 1, np.arange(10), 0.0, 16) == 0).all()


def test_accumulated_gradient_is_that_of_the_whole_batch():
    gradients = []
    for accumulation in (1, 4):
        step = frozen_step(gradient_accumulation=accumulation, halt_exploration=0.0)
        step.optimisers = []  # keep the gradients
        step.buckets[0].slots.refill(*step.buckets[0].feed(1), step.model.initial_state(B))
        step._forward_backward(1)
        gradients.append([p.grad.to_dense().clone() for p in step.model.parameters()])
        step.buckets[0].feed.close()
    for whole, parts in zip(*gradients):
        torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-5)


def test_loss_on_blanks_ignores_the_givens():
    step = frozen_step({"blank_token_id": 1}, loss_on="blanks")
    step.buckets[0].slots.refill(*step.buckets[0].feed(1), step.model.initial_state(B))
    targets = step._labels(step.buckets[0].slots, slice(B))
    blank = step.buckets[0].slots.inputs == 1
    assert torch.equal(targets[blank], step.buckets[0].slots.labels[blank])
    assert (targets[~blank] == -100).all()
    step.buckets[0].feed.close()


def test_a_puzzle_takes_no_more_steps_than_the_supervision_curriculum_allows():
    """Of ten steps 1 until 0.2, 2 until 0.5, then 5: nothing is ever exact here, so the limit alone releases."""
    step = frozen_step(release_when="exact", supervision_curriculum="{0.2: 1, 0.5: 2}", train_steps=12)
    limits, steps = [], []
    for number in range(1, 13):
        step(number)
        limits.append(step.max_steps(number))
        steps.append(int(step.buckets[0].slots.steps.max()))
        assert torch.equal(step.buckets[0].slots.released, step.buckets[0].slots.steps >= limits[-1])
    step.buckets[0].feed.close()
    assert limits == [1] * 2 + [2] * 4 + [5] * 6
    assert steps == [1, 1, 1, 2, 1, 2, 1, 2, 3, 4, 5, 1]
