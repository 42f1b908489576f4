"""The weight average against a float64 loop, its float32 shadow, the swap, and its round trip through safetensors."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from modeling_trm.training.ema import ExponentialMovingAverage


def make_model(dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3)).to(dtype)


@torch.no_grad()
def nudge(model, step):
    generator = torch.Generator().manual_seed(step)
    for p in model.parameters():
        p.add_(torch.randn(p.shape, generator=generator).to(p.dtype) * 0.1)


def snapshot(model):
    return [p.detach().clone() for p in model.parameters()]


def assert_identical(left, right):
    assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_average_matches_a_float64_loop():
    model, decay = make_model(), 0.9
    ema = ExponentialMovingAverage(dict(model.named_parameters()), decay)
    expected = [p.double() for p in snapshot(model)]
    for step in range(20):
        nudge(model, step)
        ema.update()
        expected = [decay * e + (1 - decay) * p.double() for e, p in zip(expected, snapshot(model))]
    for average, e in zip(ema.averages, expected):
        torch.testing.assert_close(average.double(), e, rtol=1e-6, atol=1e-7)


def test_shadow_of_a_bf16_model_is_fp32_and_does_not_freeze():
    model = make_model(torch.bfloat16)
    ema = ExponentialMovingAverage(dict(model.named_parameters()), 0.999)
    assert {average.dtype for average in ema.averages} == {torch.float32}
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
    for average in ema.averages:
        average.fill_(1.5)
    for _ in range(1000):
        ema.update()  # each of these changes 1.5 by less than a bfloat16 can show
    for average in ema.averages:
        torch.testing.assert_close(average, torch.full_like(average, 1 + 0.5 * 0.999**1000), rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swap_shows_the_average_and_restores_the_weights_bit_for_bit(dtype):
    model = make_model(dtype)
    ema = ExponentialMovingAverage(dict(model.named_parameters()), 0.9)
    nudge(model, 0)
    ema.update()
    own, averages = snapshot(model), [a.clone() for a in ema.averages]
    with ema.swapped_in():
        assert_identical(snapshot(model), [a.to(dtype) for a in averages])
        assert not torch.equal(snapshot(model)[0], own[0])
    assert_identical(snapshot(model), own)
    assert_identical(ema.averages, averages)


def test_swap_restores_after_an_exception():
    model = make_model()
    ema = ExponentialMovingAverage(dict(model.named_parameters()), 0.9)
    nudge(model, 0)
    own = snapshot(model)
    with pytest.raises(KeyboardInterrupt), ema.swapped_in():
        raise KeyboardInterrupt
    assert_identical(snapshot(model), own)


def test_the_average_does_not_share_memory_with_the_weights():
    model = make_model()
    ema = ExponentialMovingAverage(dict(model.named_parameters()), 0.9)
    before = [a.clone() for a in ema.averages]
    nudge(model, 0)
    assert_identical(ema.averages, before)


@pytest.mark.parametrize("saved_after", [0, 1, 6])
def test_resume_through_safetensors_is_bit_exact(tmp_path, saved_after):
    model = make_model()
    whole = ExponentialMovingAverage(dict(model.named_parameters()), 0.95)
    for step in range(10):
        if step == saved_after:
            save_file(whole.state_dict(), tmp_path / "ema.safetensors")
            weights = snapshot(model)
        nudge(model, step)
        whole.update()

    resumed_model = make_model(seed=1)
    with torch.no_grad():
        for p, weight in zip(resumed_model.parameters(), weights, strict=True):
            p.copy_(weight)
    resumed = ExponentialMovingAverage(dict(resumed_model.named_parameters()), 0.95)
    resumed.load_state_dict(load_file(tmp_path / "ema.safetensors"))
    for step in range(saved_after, 10):
        nudge(resumed_model, step)
        resumed.update()
    assert_identical(resumed.averages, whole.averages)


def test_loading_another_models_average_is_refused_and_changes_nothing():
    ema = ExponentialMovingAverage(dict(make_model().named_parameters()), 0.9)
    before = [a.clone() for a in ema.averages]
    with pytest.raises(ValueError, match=r"the saved average has no tensor 1\.bias: 2 are on one side only"):
        ema.load_state_dict({"0.weight": torch.zeros(7, 5), "0.bias": torch.zeros(7)})
    wrong_shape = {name: torch.zeros_like(average) for name, average in ema.state_dict().items()}
    wrong_shape["1.bias"] = torch.zeros(4)
    with pytest.raises(ValueError, match=r"tensor 1.bias .* \[4\]; the model needs .* \[3\]"):
        ema.load_state_dict(wrong_shape)
    assert_identical(ema.averages, before)


def test_decay_out_of_range_is_refused():
    with pytest.raises(ValueError, match="decay=1"):
        ExponentialMovingAverage(dict(make_model().named_parameters()), 1.0)
