"""A training step asks the device for nothing: no operation whose result the host, or the next shape, waits for.

On a CPU such operations cost nothing and go unnoticed; on CUDA each drains the queue of kernels. So they are counted
here by name. What waits on CUDA only, as the sum over a sparse tensor's equal rows does, is named as well.
"""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from modeling_trm import PRESETS, modeling_trm
from modeling_trm.training import rows as rows_module
from modeling_trm.training.arguments import OptimisationArguments
from modeling_trm.training.optimisers import OPTIMISERS, build_optimisers
from tests.training.frozen import SEED, frozen_step

WAITS = set("_local_scalar_dense item nonzero masked_select _coalesce _unique2 unique_consecutive equal".split())
BRANCHES = [
    {},
    {"loss_on": "blanks", "release_when": "exact", "clip_grad_norm": 1.0},
    {"objective": "dis", "gradient_accumulation": 3, "step_weights": "rising"},
    {"random_start": True, "token_loss": "softmax", "label_smoothing": 0.1},
    {"noise_std": 0.1, "damping": 0.05, "corrupted_share": 0.25},
]


class Waits(TorchDispatchMode):
    """Names of the waiting operations of a block, but for reading the counters that optimisers keep on the host."""

    def __init__(self, counters):
        super().__init__()
        self.counters, self.names = {counter.data_ptr() for counter in counters}, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        on_host = name == "_local_scalar_dense" and args[0].data_ptr() in self.counters
        if by_mask or (name in WAITS and not on_host):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def waits_of(step, monkeypatch):
    """Of the third step; the first ones make the optimisers' state."""
    monkeypatch.setattr(modeling_trm, "_check_range", lambda *arguments: None)  # it looks at tensors of the CPU alone
    for number in (1, 2):
        step(number)
    states = [state for optimiser in step.optimisers for state in optimiser.state.values()]
    with Waits([state["step"] for state in states if "step" in state]) as waits:
        step(3)
    step.buckets[0].feed.close()
    return waits.names


@pytest.mark.parametrize("arguments", BRANCHES, ids=str)
def test_no_branch_of_a_recipe_waits(arguments, monkeypatch):
    config = {"blank_token_id": 1} if "loss_on" in arguments else {}
    if "objective" in arguments:
        config = {"halt_max_steps": 4, "num_step_embeddings": 4, "answer_feedback": True}
    assert waits_of(frozen_step(config, **arguments), monkeypatch) == []


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_waits(preset, monkeypatch):
    config = {**PRESETS[preset], "hidden_size": 32, "num_attention_heads": 2, "mamba_d_state": 8, "mamba_head_dim": 16}
    config |= {"puzzle_prefix_len": 1, "H_cycles": 1, "L_cycles": 1, "halt_max_steps": 4}
    assert waits_of(frozen_step(config), monkeypatch) == []


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_no_optimiser_waits(optimiser, monkeypatch):
    step = frozen_step()
    step.optimisers = build_optimisers(step.model, OptimisationArguments(optimiser=optimiser))
    assert waits_of(step, monkeypatch) == []


def test_waiting_is_noticed():
    with Waits([]) as waits:
        x = torch.arange(3.0)
        float(x.sum()), x[x > 1], x.nonzero()
        torch.sparse_coo_tensor([[0, 0]], [1.0, 2.0], (2,), check_invariants=False).coalesce()
    assert waits.names == ["_local_scalar_dense", "index", "nonzero", "_coalesce"]


def test_what_goes_to_a_gpu_is_pinned_by_the_thread_that_draws_it(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.dtype) or tensor)
    cuda = torch.device("cuda")
    assert rows_module.pinned(np.zeros(3, dtype=np.uint8), cuda).dtype == torch.uint8
    assert pinned == [torch.uint8]
    rows_module.pinned(np.zeros(3), torch.device("cpu"))
    assert pinned == [torch.uint8]
    step = frozen_step()
    drawn = step.buckets[0].feed._draw(1)
    assert {name: column.dtype for name, column in drawn.items()} == {
        "inputs": torch.uint8, "labels": torch.uint8, "puzzle_ids": torch.int64,
    }  # fmt: skip
    step.buckets[0].feed.device = cuda
    step.buckets[0].feed._draw(SEED)
    assert pinned == [torch.uint8] * 3 + [torch.int64]
    step.buckets[0].feed.close()
