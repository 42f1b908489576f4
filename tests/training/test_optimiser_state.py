"""What optimisers have gathered, by name: it fits however the parameters are ordered and shared out."""

import pytest
import torch
from torch import nn

from modeling_trm.training.optimiser_state import load_optimiser_state, optimiser_state
from modeling_trm.training.optimisers import AdamATan2


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))


def take_step(model, optimisers, number):
    torch.manual_seed(number)
    model(torch.randn(4, 5)).square().sum().backward()
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad()


@pytest.mark.parametrize("kind", [AdamATan2, torch.optim.AdamW])
def test_another_order_and_division_goes_on_bit_for_bit(kind):
    model = make_model()
    whole = [kind(model.parameters(), lr=0.01)]
    take_step(model, whole, 1)
    saved = {name: value.clone() for name, value in optimiser_state(model, whole).items()}
    assert set(saved) == {f"{p}/{e}" for p, _ in model.named_parameters() for e in ("step", "exp_avg", "exp_avg_sq")}
    other = make_model()
    other.load_state_dict(model.state_dict())
    parts = [kind(other[1].parameters(), lr=0.01), kind([other[0].bias, other[0].weight], lr=0.01)]
    load_optimiser_state(other, parts, saved)
    take_step(model, whole, 2)
    take_step(other, parts, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters()))


def test_what_is_not_saved_begins_anew():
    model = make_model()
    optimisers = [AdamATan2(model.parameters())]
    take_step(model, optimisers, 1)
    load_optimiser_state(model, optimisers, {})
    assert optimiser_state(model, optimisers) == {}


def test_a_state_of_another_model_is_refused_by_name():
    model = make_model()
    optimisers = [AdamATan2(model.parameters())]
    with pytest.raises(ValueError, match=r"is of '2\.weight', which no optimiser of this run trains"):
        load_optimiser_state(model, optimisers, {"2.weight/exp_avg": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"1.bias/exp_avg has shape \[4\], the parameter \[3\]"):
        load_optimiser_state(model, optimisers, {"1.bias/exp_avg": torch.zeros(4)})
