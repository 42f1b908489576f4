"""AdamATan2 and SignSGD against scalar transcriptions of their sources, Muon's share of a model, exact resumption."""

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from modeling_trm import PRESETS
from modeling_trm.losses_trm import stablemax_cross_entropy
from modeling_trm.training.arguments import OptimisationArguments
from modeling_trm.training.muon import Muon
from modeling_trm.training.optimisers import OPTIMISERS, AdamATan2, SignSGD, build_optimisers, core_parameters
from modeling_trm.training.schedule import lr_factor, set_lr


@pytest.fixture
def make_model(tiny_model):
    """make_model(preset, **overrides): the same tiny model at every call."""

    def make(preset="tr-mamba2mlpt", **overrides):
        torch.manual_seed(0)
        return tiny_model(preset, **overrides)

    return make


def backward(model, step):
    """The gradient of one supervision step on a batch that depends on nothing but `step`."""
    generator = torch.Generator().manual_seed(step)
    shape = (4, model.config.seq_len)
    input_ids, labels = (torch.randint(1, model.config.vocab_size, shape, generator=generator) for _ in range(2))
    puzzle_ids = torch.randint(0, model.config.num_puzzles, (4,), generator=generator)
    model(input_ids, puzzle_ids, labels).loss.backward()


# AdamATan2


def scalar_adam_atan2(weight, gradients, lr, beta1, beta2, weight_decay):
    """One number through the arithmetic of the reference's kernel (adam_atan2.cu, adam_math), in Python's float64."""
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        step_size = lr / (1 - beta1**t)
        weight *= 1 - lr * weight_decay
        m = m + (1 - beta1) * (g - m)
        v = v + (1 - beta2) * (g * g - v)
        denominator = math.sqrt(v) / math.sqrt(1 - beta2**t)
        weight -= step_size * math.atan2(m, denominator)
    return weight


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.0, 0.99)])
def test_adam_atan2_matches_the_scalar_loop(dtype, tolerance, betas):
    generator = torch.Generator().manual_seed(1)
    params = [nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in ((3, 2), (5,), ())]
    start = [p.detach().clone() for p in params]
    gradients = [[torch.randn(p.shape, generator=generator).to(dtype) * 10.0**-k for p in params] for k in range(7)]
    gradients[0][1][0] = gradients[1][1][0] = 0.0  # atan2(0, 0): nothing seen so far, no move
    optimiser = AdamATan2(params, lr=0.03, betas=betas, weight_decay=0.7)
    for step_gradients in gradients:
        for p, g in zip(params, step_gradients):
            p.grad = g.clone()
        optimiser.step()
    for i, p in enumerate(params):
        for j, value in enumerate(p.detach().flatten().tolist()):
            series = [g[i].flatten()[j].item() for g in gradients]
            expected = scalar_adam_atan2(start[i].flatten()[j].item(), series, 0.03, *betas, 0.7)
            assert value == pytest.approx(expected, rel=tolerance, abs=tolerance)


def test_adam_atan2_first_step_follows_the_references_bias_correction():
    """Outside the atan2: 10 * atan(0.1) = 0.9967. Inside, as in adam-atan2-pytorch, it would be pi/4 = 0.7854."""
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    weight.grad = torch.full_like(weight, 123.0)
    AdamATan2([weight], lr=1.0, betas=(0.9, 0.95), weight_decay=0.0).step()
    assert weight.item() == pytest.approx(-10 * math.atan(0.1), rel=1e-12)


def test_adam_atan2_counts_steps_per_parameter():
    """A parameter that had no gradient at first is bias-corrected by its own count."""
    early, late = (nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(2))
    optimiser = AdamATan2([early, late], lr=1.0, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(3):
        early.grad = torch.ones_like(early)
        late.grad = torch.ones_like(late) if step == 2 else None
        optimiser.step()
    assert late.item() == pytest.approx(scalar_adam_atan2(0.0, [1.0], 1.0, 0.9, 0.95, 0.0), rel=1e-12)
    assert early.item() == pytest.approx(scalar_adam_atan2(0.0, [1.0] * 3, 1.0, 0.9, 0.95, 0.0), rel=1e-12)


def test_adam_atan2_leaves_gradients_alone():
    weight = nn.Parameter(torch.randn(4))
    weight.grad = torch.randn(4)
    before = weight.grad.clone()
    AdamATan2([weight]).step()
    assert torch.equal(weight.grad, before)


@pytest.mark.parametrize("bad", [{"lr": -1.0}, {"betas": (1.0, 0.9)}, {"betas": (0.9, -0.1)}, {"weight_decay": -0.1}])
def test_adam_atan2_refuses_settings_out_of_range(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        AdamATan2([nn.Parameter(torch.zeros(1))], **bad)


# SignSGD


def table_with_gradient(rows, ids, gradient_RD, dim=3):
    table = nn.Embedding(rows, dim, sparse=True)
    (table(torch.tensor(ids)) * gradient_RD).sum().backward()
    return table


def test_sign_sgd_matches_the_row_loop():
    ids = [4, 1, 4, 7]  # row 4 twice; its third entry sums to zero and so does all of row 7
    gradient = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0], [-4.0, -1.0, -0.5], [0.0, 0.0, 0.0]])
    table = table_with_gradient(10, ids, gradient)
    before, lr, weight_decay = table.weight.detach().double(), 0.1, 0.3
    SignSGD([table.weight], lr=lr, weight_decay=weight_decay).step()

    expected = before.clone()
    for row in set(ids):
        for d in range(3):
            total = sum(gradient[k, d].item() for k, id_ in enumerate(ids) if id_ == row)
            sign = (total > 0) - (total < 0)
            expected[row, d] = before[row, d] * (1 - lr * weight_decay) - lr * sign
    torch.testing.assert_close(table.weight.detach().double(), expected, rtol=1e-6, atol=1e-7)
    assert not torch.equal(table.weight[7].double(), before[7]), "a row of the batch without gradient still decays"
    untouched = [r for r in range(10) if r not in ids]
    assert torch.equal(table.weight[untouched].double(), before[untouched])


@pytest.mark.parametrize("rows", [1, 5, 300])
def test_sign_sgd_sums_shared_rows_bit_for_bit_as_coalesce_does(rows):
    ids = torch.randint(rows, (200,)).tolist()
    gradient = torch.randn(200, 8)
    for row in set(ids):  # sums near zero, whose sign is that of the rounding
        last = [k for k, id_ in enumerate(ids) if id_ == row][-1]
        gradient[last] -= gradient[[k for k, id_ in enumerate(ids) if id_ == row]].sum(0)
    table = table_with_gradient(rows, ids, gradient, dim=8)
    nn.init.normal_(table.weight)
    expected, summed = table.weight.detach().clone(), table.weight.grad.coalesce()
    places, sums = summed.indices()[0], summed.values()
    expected[places] = expected[places] * (1 - 0.1 * 0.3) - 0.1 * sums.sign()
    SignSGD([table.weight], lr=0.1, weight_decay=0.3).step()
    assert torch.equal(table.weight.detach(), expected)


class LargestResult(TorchDispatchMode):
    """The number of elements of the largest dense tensor that any operation inside the block gave back."""

    def __init__(self, known):
        super().__init__()
        self.known, self.numel = known, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            dense = isinstance(tensor, torch.Tensor) and not tensor.is_sparse
            if dense and tensor.untyped_storage().data_ptr() != self.known:  # the table itself, updated in place
                self.numel = max(self.numel, tensor.numel())
        return result


def test_sign_sgd_makes_nothing_of_the_tables_size():
    table = table_with_gradient(1_000_000, [5, 999_999, 5], torch.ones(3, 4), dim=4)
    before = table.weight.detach().clone()
    with LargestResult(table.weight.untyped_storage().data_ptr()) as largest:
        SignSGD([table.weight], lr=0.5, weight_decay=0.0).step()
    assert 0 < largest.numel <= 12
    changed = (table.weight.detach() != before).any(dim=1).nonzero().flatten()
    assert changed.tolist() == [5, 999_999]


def test_sign_sgd_refuses_a_dense_gradient():
    weight = nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.ones(2, 2)
    with pytest.raises(ValueError, match="sparse"):
        SignSGD([weight]).step()


# build_optimisers


def optimisers_of(model, **settings):
    return build_optimisers(model, OptimisationArguments(**settings))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_parameter_has_exactly_one_optimiser(make_model, preset, name):
    model = make_model(preset)
    owned = [p for o in optimisers_of(model, optimiser=name) for group in o.param_groups for p in group["params"]]
    assert sorted(map(id, owned)) == sorted(map(id, model.parameters()))


@pytest.mark.parametrize("preset", PRESETS)
def test_muon_gets_the_matrices_of_the_stack_and_the_table_its_own(make_model, preset):
    model = make_model(preset)
    muon, adamw, table = optimisers_of(model, optimiser="muon")
    assert (type(muon), type(adamw), type(table)) == (Muon, torch.optim.AdamW, SignSGD)
    names = {id(p): name for name, p in model.named_parameters()}
    matrices = {names[id(p)] for p in muon.param_groups[0]["params"]}
    linear = {n for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.startswith("model.stack.")}
    assert matrices == {f"{n}.weight" for n in linear}
    assert [names[id(p)] for p in table.param_groups[0]["params"]] == ["model.puzzle_emb.weight"]


def test_settings_reach_their_optimiser(make_model):
    settings = {
        "learning_rate": 0.1, "beta1": 0.8, "beta2": 0.85, "weight_decay": 0.2, "muon_lr": 0.3, "muon_momentum": 0.6,
        "muon_ns_steps": 3, "muon_weight_decay": 0.4, "puzzle_lr": 0.5, "puzzle_weight_decay": 0.6,
    }  # fmt: skip
    groups = [o.param_groups[0] for o in optimisers_of(make_model(), optimiser="muon", **settings)]
    muon, adamw, table = groups
    assert [muon[k] for k in ("lr", "momentum", "ns_steps", "weight_decay")] == [0.3, 0.6, 3, 0.4]
    assert [adamw[k] for k in ("lr", "betas", "weight_decay")] == [0.1, (0.8, 0.85), 0.2]
    assert [table[k] for k in ("lr", "weight_decay")] == [0.5, 0.6]


def test_muon_step_is_the_recipes(make_model):
    """recipes of arXiv 2601.19085: u = (1 - b) g + b m, Newton-Schulz on u, step lr * sqrt(max(1, rows / columns))."""
    model = make_model("trm-mlp-t")
    settings = {"muon_lr": 0.02, "muon_momentum": 0.6, "muon_ns_steps": 3, "muon_weight_decay": 0.005}
    muon = optimisers_of(model, optimiser="muon", **settings)[0]
    weight = model.model.stack[1].gate_up_proj.weight  # twice as many rows as columns or more
    rows, columns = weight.shape
    assert rows > columns
    start = weight.detach().double()
    backward(model, 0)
    gradient = weight.grad.double()
    muon.step()
    x = (0.4 * gradient + 0.6 * 0.4 * gradient).T
    x = x / x.norm()
    for _ in range(3):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    expected = start * (1 - 0.02 * 0.005) - 0.02 * math.sqrt(rows / columns) * x.T
    # Muon iterates in bfloat16 (8 bits): three steps agree with float64 to some percent of the largest entry.
    atol = 0.04 * (expected - start).abs().max().item()
    torch.testing.assert_close(weight.detach().double(), expected, rtol=0, atol=atol)


def test_a_model_without_a_table_has_no_sign_sgd(make_model):
    model = make_model(puzzle_prefix_len=0, num_puzzles=1)
    assert [type(o) for o in optimisers_of(model)] == [AdamATan2]
    assert len(core_parameters(model)) == len(list(model.parameters()))


def test_an_unknown_optimiser_is_refused_naming_the_known_ones(make_model):
    with pytest.raises(ValueError, match="'adamatan2' is unknown; allowed: adam_atan2, adamw, muon"):
        optimisers_of(make_model(), optimiser="adamatan2")


def train(model, optimisers, steps):
    for step in steps:
        set_lr(optimisers, lr_factor(step, warmup_steps=3, total_steps=6, kind="cosine"))
        backward(model, step)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()


@pytest.mark.parametrize("name", OPTIMISERS)
def test_resume_is_bit_exact(make_model, name, tmp_path):
    """Six steps at a stretch, and six with the state of model and optimisers written to disk after the third."""
    whole = make_model()
    train(whole, optimisers_of(whole, optimiser=name), range(1, 7))

    first = make_model()
    optimisers = optimisers_of(first, optimiser=name)
    train(first, optimisers, range(1, 4))
    state = {"model": first.state_dict(), "optimisers": [o.state_dict() for o in optimisers]}
    torch.save(state, tmp_path / "state.pt")

    state = torch.load(tmp_path / "state.pt", weights_only=True)
    second = make_model(initial_state_std=0.5)  # other buffers, to be overwritten
    second.load_state_dict(state["model"])
    optimisers = optimisers_of(second, optimiser=name)
    for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(saved)
    train(second, optimisers, range(4, 7))
    for key, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[key], value), key


@pytest.mark.parametrize("name", OPTIMISERS)
def test_training_lowers_the_loss_on_one_batch(make_model, name):
    model = make_model()
    optimisers = optimisers_of(model, optimiser=name, learning_rate=3e-3, muon_lr=0.01, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    input_ids, labels = (torch.randint(1, 6, (4, 16), generator=generator) for _ in range(2))
    losses = []
    for _ in range(30):
        # the token loss alone: the halting loss rises when the answers become right
        loss = stablemax_cross_entropy(model(input_ids).logits, labels).mean()
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.cuda
@pytest.mark.parametrize("name", OPTIMISERS)
def test_gpu_steps_agree_with_the_cpu(make_model, name):
    on_cpu, on_gpu = make_model("trm-mlp-t"), make_model("trm-mlp-t").cuda()
    pairs = list(zip(on_cpu.parameters(), on_gpu.parameters(), strict=True))
    optimisers = [optimisers_of(model, optimiser=name) for model in (on_cpu, on_gpu)]
    for step in range(3):
        backward(on_cpu, step)
        for cpu, gpu in pairs:
            gpu.grad = cpu.grad.cuda()
        for side in optimisers:
            for optimiser in side:
                optimiser.step()
                optimiser.zero_grad()
    for cpu, gpu in pairs:
        torch.testing.assert_close(gpu.cpu(), cpu, rtol=1e-5, atol=2e-3 if name == "muon" else 1e-6)
