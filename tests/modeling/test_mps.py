"""Apple's GPU has no float64. What can be held without one: where `wide` says so, nothing computes in it."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from modeling_trm import losses_trm, trajectories_trm
from tests.conftest import ONE_OF_A_KIND


class NoFloat64(TorchDispatchMode):
    """Raises where PyTorch gives a tensor of float64."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        for value in tree_leaves(out):
            assert not (isinstance(value, torch.Tensor) and value.dtype == torch.float64), f"{func} gives float64"
        return out


def test_the_widest_type_of_a_device() -> None:
    assert losses_trm.wide(torch.ones(1)).dtype == torch.float64
    assert losses_trm.wide(torch.ones(1, dtype=torch.bfloat16)).dtype == torch.float64
    on_mps = torch.ones(1).as_subclass(OnMPS)
    assert losses_trm.wide(on_mps).dtype == torch.float32


class OnMPS(torch.Tensor):
    """A tensor that says that it lies on Apple's GPU."""

    @property
    def device(self) -> torch.device:
        return torch.device("mps")


@pytest.mark.parametrize("preset", ONE_OF_A_KIND)
def test_training_and_solving_need_no_float64(preset: str, tiny_model, tiny_batch, monkeypatch) -> None:
    for module in (losses_trm, trajectories_trm):
        monkeypatch.setattr(module, "wide", torch.Tensor.float)
    model = tiny_model(preset)
    batch = tiny_batch(model.config)
    with NoFloat64():
        model(**batch).loss.backward()
        model.eval().solve(
            batch["input_ids"], max_steps=2, num_trajectories=3, noise_std=0.1, selection="vote", engine="eager"
        )
