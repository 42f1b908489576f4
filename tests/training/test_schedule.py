"""The schedule against a transcription of the reference's formula, and its independence of anything but the step."""

import math
from itertools import pairwise

import pytest
import torch
from transformers import get_wsd_schedule

from modeling_trm.training.schedule import STEP_WEIGHTS, lr_factor, reveal_share, set_lr, stage_at, step_weights


def reference_factor(step, warmup, total, min_ratio):
    """pretrain.py of the reference: cosine_schedule_with_warmup_lr_lambda with base_lr 1 and num_cycles 0.5."""
    if step < warmup:
        return float(step) / float(max(1, warmup))
    progress = float(step - warmup) / float(max(1, total - warmup))
    return min_ratio + max(0.0, (1 - min_ratio) * 0.5 * (1.0 + math.cos(math.pi * 0.5 * 2.0 * progress)))


@pytest.mark.parametrize(("warmup", "total", "min_ratio"), [(0, 7, 0.0), (3, 10, 0.1), (5, 5, 0.0), (20, 10, 0.0)])
def test_cosine_is_the_references(warmup, total, min_ratio):
    for step in range(1, total + 1):
        ours = lr_factor(step, warmup_steps=warmup, total_steps=total, kind="cosine", min_ratio=min_ratio)
        assert ours == pytest.approx(reference_factor(step, warmup, total, min_ratio), abs=1e-15)


def test_constant_warms_up_linearly_then_stays():
    factors = [lr_factor(step, warmup_steps=4, total_steps=8) for step in range(1, 9)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(("warmup", "total", "share", "min_ratio"), [(4, 40, 0.25, 0.0), (0, 20, 0.5, 0.1)])
def test_warmup_stable_decay_is_that_of_transformers(warmup, total, share, min_ratio):
    """Linear at both ends. There the first update of a warm-up has the rate 0, here as in the reference 1 / warmup."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    falling = round(share * total)
    steps = {"num_stable_steps": total - warmup - falling, "num_decay_steps": falling, "num_warmup_steps": warmup}
    theirs = get_wsd_schedule(
        optimiser, **steps, warmup_type="linear", decay_type="linear", min_lr_ratio=min_ratio
    ).lr_lambdas[0]
    options = {"kind": "warmup_stable_decay", "decay_share": share, "min_ratio": min_ratio}
    for step in range(1, total + 6):
        ours = lr_factor(step, warmup_steps=warmup, total_steps=total, **options)
        assert ours == pytest.approx(theirs(step), abs=1e-12), step


def test_cosine_stays_at_its_end():
    assert lr_factor(25, warmup_steps=2, total_steps=20, kind="cosine", min_ratio=0.125) == pytest.approx(0.125)


def test_a_run_begun_at_a_step_rises_once_more_to_the_same_schedule():
    whole, begun = (
        [lr_factor(step, warmup_steps=4, total_steps=40, kind="cosine", start_step=start) for step in range(21, 41)]
        for start in (0, 20)
    )
    assert begun[:4] == [whole[0] / 4, whole[1] / 2, whole[2] * 3 / 4, whole[3]]
    assert begun[4:] == whole[4:]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"kind='linear'.*constant, cosine"):
        lr_factor(1, warmup_steps=0, total_steps=5, kind="linear")
    with pytest.raises(ValueError, match="step=0"):
        lr_factor(0, warmup_steps=0, total_steps=5)
    with pytest.raises(ValueError, match="warmup_steps=-1"):
        lr_factor(1, warmup_steps=-1, total_steps=5)


def test_set_lr_scales_the_created_rate_and_never_compounds():
    one, two = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    optimisers = [torch.optim.SGD([{"params": [one], "lr": 0.5}, {"params": [two], "lr": 2.0}])]
    for factor in (0.5, 0.25, 1.0, 0.125):
        set_lr(optimisers, factor)
        assert [group["lr"] for group in optimisers[0].param_groups] == [0.5 * factor, 2.0 * factor]


def test_set_lr_goes_on_after_a_checkpoint_saved_at_another_factor():
    """The saved groups carry the scaled rate; the rate they were created with must survive the round trip."""
    first = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    set_lr([first], 0.1)
    second = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    second.load_state_dict(first.state_dict())
    set_lr([second], 1.0)
    assert second.param_groups[0]["lr"] == 0.5


def test_the_curriculum_falls_as_a_parabola_and_stays():
    shares = [reveal_share(step, start=1.0, end=0.2, until=100) for step in range(0, 201, 50)]
    assert shares == pytest.approx([1.0, 0.4, 0.2, 0.2, 0.2])
    assert reveal_share(7, start=0.0, end=0.0, until=0) == 0.0  # no curriculum


@pytest.mark.parametrize("kind", STEP_WEIGHTS)
@pytest.mark.parametrize("steps", [1, 6, 16])
def test_step_weights_are_one_on_average(kind, steps):
    weights = step_weights(kind, steps)
    assert len(weights) == steps and min(weights) > 0
    assert sum(weights) == pytest.approx(steps)


def test_step_weights_rise_and_fall_as_published():
    assert step_weights("uniform", 3) == [1.0, 1.0, 1.0]
    assert step_weights("rising", 3) == pytest.approx([0.5, 1.0, 1.5])
    falling = step_weights("falling", 5)
    assert [b / a for a, b in pairwise(falling)] == pytest.approx([0.7] * 4)


def test_a_stage_holds_until_its_share_of_the_run():
    curriculum = {0.6: (2, 4), 0.3: (1, 2)}
    stages = [stage_at(step, 10, curriculum, (3, 6)) for step in range(1, 11)]
    assert stages == [(1, 2)] * 3 + [(2, 4)] * 3 + [(3, 6)] * 4
    assert stage_at(1, 10, {}, 16) == 16
