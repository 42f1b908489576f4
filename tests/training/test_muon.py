"""Muon against torch.optim.Muon, bit for bit on a CPU; padded batches against single matrices; operations counted."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from modeling_trm import TRMConfig, TRMForGridReasoning
from modeling_trm.training.arguments import OptimisationArguments
from modeling_trm.training.muon import Muon, orthogonalise
from modeling_trm.training.optimiser_state import load_optimiser_state, optimiser_state
from modeling_trm.training.optimisers import build_optimisers

SETTINGS = {"lr": 0.02, "weight_decay": 0.3, "momentum": 0.9, "ns_steps": 4}
# Equal ones apart from each other, one shape and its turned one, a vector, sides that no block size divides.
SHAPES = [(16, 48), (48, 16), (16, 48), (32, 32), (97, 21), (16, 20), (1, 7), (48, 16), (32, 32)]


def of_torch(params, **settings):
    return torch.optim.Muon(params, nesterov=True, adjust_lr_fn="original", **settings)


def parameters(dtype=torch.float32, shapes=SHAPES):
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def give_gradients(params, step, without=()):
    """The same at every call; None for the numbers in `without`."""
    generator = torch.Generator().manual_seed(100 + step)
    for number, p in enumerate(params):
        gradient = torch.randn(p.shape, generator=generator).to(p.dtype) * 10.0 ** (step - number)
        p.grad = None if number in without else gradient


def assert_equal(ours, theirs):
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.dtype == b.dtype
        assert torch.equal(a, b), f"number {number}, {list(a.shape)}: {(a - b).abs().max()}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("settings", [{}, SETTINGS], ids=["defaults", "others"])
def test_a_cpus_steps_are_torchs_bit_for_bit(dtype, settings):
    """Three steps, in which some matrices have no gradient at first, or later, or ever."""
    ours, theirs = parameters(dtype), parameters(dtype)
    optimisers = [Muon(ours, **settings), of_torch(theirs, **settings)]
    for step, without in enumerate([(0, 3, 5), (1, 5), (5,)]):
        for params, optimiser in zip((ours, theirs), optimisers):
            give_gradients(params, step, without)
            optimiser.step()
        assert_equal(ours, theirs)
    states = [[o.state[p]["momentum_buffer"] for p in ps if o.state[p]] for ps, o in zip((ours, theirs), optimisers)]
    assert len(states[0]) == len(SHAPES) - 1
    assert_equal(*states)


def test_a_cpus_step_is_torchs_at_the_hybrids_sizes():
    """There layout and padding decide how oneDNN rounds a product; added to weights of 0, no digit of it is lost."""
    shapes = [(2320, 512), (512, 1024), (97, 512), (1024, 97)]
    ours, theirs = ([nn.Parameter(torch.zeros(shape)) for shape in shapes] for _ in range(2))
    for params, kind in ((ours, Muon), (theirs, of_torch)):
        give_gradients(params, 0)
        kind(params, ns_steps=1).step()
    assert_equal(ours, theirs)


def test_groups_have_settings_of_their_own_and_dtypes_may_mix():
    ours, theirs = ([*parameters(), *parameters(torch.float64)] for _ in range(2))
    for params, kind in ((ours, Muon), (theirs, of_torch)):
        groups = [{"params": params[::2], "lr": 0.5}, {"params": params[1::2], "ns_steps": 2}]
        give_gradients(params, 0)
        kind(groups, **SETTINGS).step()
    assert_equal(ours, theirs)


def test_without_any_gradient_nothing_happens():
    params = parameters()
    optimiser = Muon(params, **SETTINGS)
    optimiser.step()
    assert_equal(params, parameters())
    assert not optimiser.state


def test_gradients_are_left_alone_and_none_of_zeros_divides_by_zero():
    params = parameters(shapes=[(8, 4), (4, 8)])
    give_gradients(params, 0)
    params[1].grad.zero_()
    before, start = [p.grad.clone() for p in params], params[1].detach().clone()
    Muon(params, lr=0.5, weight_decay=0.1).step()
    assert_equal([p.grad for p in params], before)
    torch.testing.assert_close(params[1].detach(), start * 0.95, rtol=1e-6, atol=0)


# What a GPU takes: matrices of one shorter side as one batch


def naive(matrix, steps):
    """The iteration of one matrix in float64, on whichever side it stands."""
    x = matrix.double() / matrix.double().norm()
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


@pytest.mark.parametrize("shapes", [[(16, 48), (48, 16), (16, 16), (20, 16), (16, 97)], [(48, 16), (97, 16)]], ids=str)
def test_a_padded_batch_has_what_each_matrix_has_alone(shapes):
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.randn(shape, generator=generator) * 10.0**k for k, shape in enumerate(shapes)]
    for result, matrix in zip(orthogonalise(matrices, 3), matrices, strict=True):
        assert (result.shape, result.dtype) == (matrix.shape, torch.bfloat16)
        (alone,) = orthogonalise([matrix], 3)
        largest = alone.abs().max().item()
        torch.testing.assert_close(result, alone, rtol=0, atol=0.02 * largest)  # bfloat16 has 8 bits
        torch.testing.assert_close(result.double(), naive(matrix, 3), rtol=0, atol=0.04 * largest)


class Operations(TorchDispatchMode):
    """The number of operations of a block, each at least a launch on a GPU; views and a profiler's marks are none."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view and func.namespace == "aten"
        return func(*args, **(kwargs or {}))


def operations(optimiser):
    """Of the second step; the first makes the state."""
    for p in optimiser.param_groups[0]["params"]:
        p.grad = torch.zeros_like(p)
    optimiser.step()
    with Operations() as operations:
        optimiser.step()
    return operations.count


@pytest.mark.parametrize(
    ("device", "overrides", "most"), [("meta", {}, 51), ("cpu", {"hidden_size": 64, "num_attention_heads": 2}, 137)]
)
def test_a_step_takes_few_operations(device, overrides, most):
    """For these 8 matrices torch.optim.Muon takes 184. A CPU makes 6 batches of them, another device 2."""
    model = TRMForGridReasoning(TRMConfig.from_preset("tr-mamba2mlpt", **overrides)).to(device)
    muon = build_optimisers(model, OptimisationArguments(optimiser="muon"))[0]
    assert len(muon.param_groups[0]["params"]) == 8
    assert operations(muon) <= most


# Checkpoints and errors


def test_a_checkpoint_of_torchs_muon_goes_on_bit_for_bit():
    """By name, as our checkpoints are, and by position, with torch's own groups."""
    theirs, named, placed = (nn.ParameterList(parameters()) for _ in range(3))
    optimiser = of_torch(theirs, **SETTINGS)
    give_gradients(theirs, 0)
    optimiser.step()
    for model in (named, placed):
        model.load_state_dict(theirs.state_dict())
    by_name, by_place = Muon(named, **SETTINGS), Muon(placed)
    load_optimiser_state(named, [by_name], copy.deepcopy(optimiser_state(theirs, [optimiser])))
    by_place.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    assert optimiser_state(named, [by_name]).keys() == optimiser_state(theirs, [optimiser]).keys()
    for model, each in ((theirs, optimiser), (named, by_name), (placed, by_place)):
        give_gradients(model, 1)
        each.step()
    assert_equal(named, theirs)
    assert_equal(placed, theirs)


@pytest.mark.parametrize("name", SETTINGS)
def test_negative_settings_are_refused_by_name(name):
    with pytest.raises(ValueError, match=rf"^{name}=-1 is negative; allowed: 0 or more$"):
        Muon(parameters(), **{name: -1})


@pytest.mark.parametrize("shape", [(3,), (), (2, 3, 4)])
def test_only_matrices_are_taken(shape):
    with pytest.raises(ValueError, match=r"a parameter has shape \[.*\]: give it to another optimiser"):
        Muon(parameters(shapes=[(2, 2), shape]))


def test_no_parameters_are_refused():
    with pytest.raises(ValueError, match="empty parameter list"):
        Muon([])


def test_the_loss_of_a_closure_is_returned_with_its_gradient():
    (weight,) = params = parameters(shapes=[(2, 3)])
    start = weight.detach().clone()

    def loss():
        weight.grad = None
        total = weight.square().sum()
        total.backward()
        return total.item()

    assert Muon(params).step(loss) == pytest.approx(start.square().sum().item())
    assert not torch.equal(weight, start)
