"""Mamba-3: the decayed sum against the recurrence at every form of SSD, and what the packed engines leave in float32.

The names and shapes are those of mamba_ssm.modules.mamba3.Mamba3 2.3.2 without MIMO; its kernels need a GPU.
"""

from collections.abc import Callable

import pytest
import torch

from modeling_trm import TRMConfig, TRMModel, mamba2_trm
from tests.oracles import operators as oracle


@pytest.mark.parametrize("one_chunk_up_to", [256, 8])
@pytest.mark.parametrize("length", [1, 2, 81])
def test_every_form_equals_the_recurrence(
    length: int, one_chunk_up_to: int, tiny_config: Callable[..., TRMConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mamba2_trm, "ONE_CHUNK_UP_TO", one_chunk_up_to)
    monkeypatch.setattr(mamba2_trm, "CHUNK", 8)
    config = tiny_config("trm-attn", block_operators=["mamba3"], mamba_n_groups=2)
    operator = TRMModel(config).stack[0].double()
    x = torch.randn(2, length, config.hidden_size, dtype=torch.float64)
    expected = oracle.mamba3(dict(operator.named_parameters()), config, x)
    torch.testing.assert_close(operator(x), expected, rtol=0, atol=1e-11)


def test_names_and_shapes_are_those_of_mamba_ssm() -> None:
    config = TRMConfig(block_operators=["mamba3"])  # its defaults, d_model 512
    shapes = {name: tuple(value.shape) for name, value in TRMModel(config).stack[0].state_dict().items()}
    assert shapes == {
        "in_proj.weight": (2 * 1024 + 2 * 128 + 3 * 16 + 32, 512),
        "dt_bias": (16,),
        "B_bias": (16, 1, 128),
        "C_bias": (16, 1, 128),
        "B_norm.weight": (128,),
        "C_norm.weight": (128,),
        "D": (16,),
        "out_proj.weight": (512, 1024),
    }


def test_it_is_causal(tiny_config: Callable[..., TRMConfig]) -> None:
    operator = TRMModel(tiny_config("trm-attn", block_operators=["mamba3"])).stack[0].double()
    x = torch.randn(1, 18, 32, dtype=torch.float64)
    changed = torch.cat((x[:, :10], x[:, 10:] + 1), dim=1)
    difference = (operator(changed) - operator(x)).abs().amax(-1)[0]
    assert difference[:10].max() < 1e-13
    assert difference[10:].min() > 1e-6
