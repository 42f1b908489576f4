"""Random starts, noise, damping and corrupted answers: what they do to the latents, and that a draw repeats."""

import numpy as np
import pytest
import torch

from modeling_trm.training.arguments import parse_recipe
from tests.training.frozen import B, frozen_step


@pytest.fixture
def make_step():
    made = []

    def make(*arguments, **options):
        made.append(frozen_step(*arguments, **options))
        return made[-1]

    yield make
    for step in made:
        step.buckets[0].feed.close()


def test_random_starts_differ_by_slot_and_step_and_repeat(make_step):
    step, again = (make_step({"initial_state_std": 0.5, "hidden_size": 64}, random_start=True) for _ in range(2))
    state = step.buckets[0].perturbation.start(1)
    for z in (state.z_H, state.z_L):
        assert abs(z.mean()) < 0.01 and abs(z.std() - 0.5) < 0.01
        assert not torch.equal(z[0], z[1])
    assert torch.equal(state.z_H, again.buckets[0].perturbation.start(1).z_H)
    assert not torch.equal(state.z_H, step.buckets[0].perturbation.start(2).z_H)
    other = make_step({"hidden_size": 64}, np.arange(3, B), random_start=True).buckets[0].perturbation.start(1)
    assert not torch.equal(other.z_H[0] * 0.5, state.z_H[0])  # another process draws other latents


def test_noise_comes_before_the_step_and_damping_after_it(make_step, monkeypatch):
    config = {"hidden_size": 64}
    step, again = (make_step(config, noise_std=0.25, damping=0.125) for _ in range(2))
    given, forward = [], step.model.forward

    def watched(*arguments, **options):
        out = forward(*arguments, **options)
        given.append((options["state"], out.state))
        return out

    monkeypatch.setattr(step, "wrapped", watched)
    step(1)
    before, after = given[0]
    for name in ("z_H", "z_L"):
        initial = getattr(step.model.initial_state(B), name)
        noise = getattr(before, name) - initial
        assert abs(noise.mean()) < 0.01 and abs(noise.std() - 0.25) < 0.01 and not torch.equal(noise[0], noise[1])
        carried = getattr(step.buckets[0].slots.state, name)
        torch.testing.assert_close(carried, 0.875 * getattr(after, name) + 0.125 * getattr(before, name))
    again(1)
    assert torch.equal(again.buckets[0].slots.state.z_H, step.buckets[0].slots.state.z_H)


@pytest.mark.parametrize("symbol_fields", [False, True])
def test_a_corrupted_answer_is_an_embedded_answer_with_wrong_cells(make_step, symbol_fields):
    config = {"hidden_size": 64, "puzzle_prefix_len": 0, "symbol_fields": symbol_fields}
    config |= {"block_operators": ["mlp_t", "symbols", "mlp"], "num_attention_heads": 2} if symbol_fields else {}
    shares = []
    for corruption in (0.0, 0.5):
        step = make_step(config, corrupted_share=0.5, corruption=corruption)
        _, labels, ids = step.buckets[0].feed(1)
        labels = labels.repeat(200, 1)
        labels[:, -9:] = 0  # padding stays
        ids = torch.zeros(len(labels), dtype=torch.long)
        chosen, z_H = step.buckets[0].perturbation.corrupted(1, labels, ids)
        assert 0.4 < chosen.float().mean() < 0.6
        whole = step.model.model.embed(labels, ids, step.model.initial_state(len(labels)))
        differs = (z_H != whole).flatten(2 + symbol_fields).any(-1)
        wrong = differs.any(1) if symbol_fields else differs
        assert not wrong[:, -9:].any()
        shares.append(wrong[:, :-9].float().mean(1))
        assert torch.equal(z_H, step.buckets[0].perturbation.corrupted(1, labels, ids)[1])
        assert corruption == 0 or not torch.equal(z_H, step.buckets[0].perturbation.corrupted(2, labels, ids)[1])
    none, some = shares
    # Half of 0.5 on average, of which one in nine draws padding and one the same digit; each puzzle has its own share.
    assert none.max() == 0 and abs(some.mean() - 0.25 * (8 / 9) ** 2) < 0.01 and some.min() < 0.05 and some.max() > 0.4


def test_a_puzzle_that_begins_near_its_end_is_trained_for_one_step(make_step):
    step = make_step(corrupted_share=1.0, corruption=0.0, halt_exploration=1.0, release_when="exact")
    for number in range(1, 4):
        step(number)
        assert step.buckets[0].slots.released.all() and (step.buckets[0].slots.steps == 1).all()
    half = make_step(corrupted_share=0.5, release_when="exact")
    half(1)
    chosen = half.buckets[0].perturbation.corrupted(1, half.buckets[0].slots.labels, half.buckets[0].slots.puzzle_ids)[
        0
    ]
    assert torch.equal(half.buckets[0].slots.released, chosen) and 0 < chosen.sum() < B
    half(2)  # a puzzle that was there before is not begun anew
    assert (half.buckets[0].slots.steps[~chosen] == 2).all()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (["--damping", "1"], "damping=1.0; allowed: "),
        (["--noise_std", "-1"], "noise_std=-1.0; allowed: "),
        (["--corrupted_share", "1.5"], "corrupted_share=1.5; allowed: "),
        (["--corrupted_share", "0.5", "--objective", "dis"], "corrupted_share=0.5 is for objective 'act' only"),
    ],
)
def test_what_is_out_of_range_is_said(fields, said):
    with pytest.raises(ValueError, match=said):
        parse_recipe(fields)
