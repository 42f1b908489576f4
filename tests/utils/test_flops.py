"""The count of floating-point operations against PyTorch's own, taken while the model runs."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from modeling_trm import PRESETS, TRMConfig, TRMForGridReasoning
from modeling_trm.mamba2_trm import ONE_CHUNK_UP_TO
from modeling_trm.operators_trm import OPERATORS
from modeling_trm.utils.flops import OPERATOR_FLOPS, flops, training_flops
from tests.conftest import alone


def measured(config: TRMConfig, batch_size: int) -> int:
    model = TRMForGridReasoning(config)
    input_ids = torch.zeros(batch_size, config.seq_len, dtype=torch.long)
    # MATH: attention as plain matrix products, which the counter knows; it has no entry for the CPU's fused kernel.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(input_ids)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"num_latents": 1, "H_cycles": 1, "L_cycles": 3, "conv2d_kernel": 5},
        {"puzzle_prefix_len": 0, "num_puzzles": 1},
        {"mamba_n_groups": 2, "mamba_expand": 4, "mamba_head_dim": 8, "mlp_gate": "normalized"},
        {"axial_lines": ["boxes", "rows"], "axial_heads": 3},
        {"symbol_mixing": "mean", "symbol_fields": True, "num_special_tokens": 1},
        {"seq_len": ONE_CHUNK_UP_TO - 2, "grid_width": 2},  # with the prefix of 2 the last of one chunk
        {"seq_len": ONE_CHUNK_UP_TO - 1, "grid_width": 17},
        {"seq_len": 301, "grid_width": 43, "mamba_n_groups": 2},
    ],
)
def test_equal_to_the_count_of_a_forward_pass(
    name: str, sizes: dict[str, object], tiny_config: Callable[..., TRMConfig]
) -> None:
    config = tiny_config("trm-attn", **alone(name) | sizes)
    assert flops(config) == measured(config, 1)
    if not sizes:
        assert 3 * flops(config) == measured(config, 3)


@pytest.mark.parametrize("preset", PRESETS)
def test_equal_at_full_width(preset: str) -> None:
    config = TRMConfig.from_preset(preset, H_cycles=1, L_cycles=1)
    assert flops(config) == measured(config, 1)


# PyTorch counts the weight gradient of conv2d's depthwise convolution as if each channel saw all the others.
COUNTED = [name for name in OPERATORS if name != "conv2d"]


@pytest.mark.parametrize(
    ("name", "cycles"), [*((name, None) for name in COUNTED), ("mamba2", (1, 2)), ("mamba2", (3, 1))]
)
def test_training_is_a_forward_pass_and_twice_its_last_cycle(
    name: str, cycles: tuple[int, int] | None, tiny_config: Callable[..., TRMConfig]
) -> None:
    config = tiny_config("trm-attn", **alone(name))
    model = TRMForGridReasoning(config)
    ids = torch.zeros(1, config.seq_len, dtype=torch.long)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        out = model(ids, cycles=cycles)
        (out.logits.sum() + out.halt_logits.sum()).backward()
    # A backward pass needs two products for each product forward, but the first stack's input needs no gradient of the
    # latents, and the embedding none of the tokens: PyTorch leaves those out.
    counted, most = counter.get_total_flops(), training_flops(config, cycles)
    assert 0.97 * most <= counted <= most


def test_every_operator_has_a_cost() -> None:
    assert OPERATOR_FLOPS.keys() == OPERATORS.keys()


class Twice(nn.Module):
    """A user's own operator of two products."""

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(config.hidden_size, 3)
        self.outer = nn.Linear(3, config.hidden_size)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.outer(self.inner(x_BLD))


class Told(Twice):
    @staticmethod
    def flops(config: TRMConfig) -> int:
        return 7


class Peeks(Twice):
    def forward(self, x_BLD: Tensor) -> Tensor:
        return x_BLD if x_BLD.sum().item() > 0 else -x_BLD


def test_the_cost_of_an_operator_of_ones_own_is_counted_or_told(
    tiny_config: Callable[..., TRMConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = {}
    for cls in (Twice, Told, Peeks):
        monkeypatch.setitem(OPERATORS, cls.__name__, cls)
        config = tiny_config("trm-attn", block_operators=[cls.__name__])
        if cls is Peeks:
            with pytest.raises(ValueError, match=r"cost of the operator 'Peeks' is not known: .* flops.config."):
                flops(config)
            continue
        state = torch.get_rng_state()
        cost[cls] = (flops(config) - 2 * config.hidden_size * (config.seq_len * config.vocab_size + 2)) / (
            config.H_cycles * (config.L_cycles + 1)
        )
        assert torch.equal(torch.get_rng_state(), state)  # no run is changed by being counted
    assert cost == {Twice: 2 * 2 * 3 * config.num_positions * config.hidden_size, Told: 7}
