"""Floating-point operations of a model, from its architecture alone: 2 for every multiply-add of a matrix product.

Counted are the linear layers, the attention scores and their use, the products of SSD as the PyTorch path computes them
(one chunk up to 256 positions, chunks of 64 above), and those of the delta rule in chunks of 64. Not counted is what
works element by element: norms, gates, rotations, short convolutions, look-ups in tables. An operator of a user's own
says its cost in a static method `flops(config)`; without one PyTorch counts the products of a pass without data.

Shapes: S positions the stack sees, D hidden, V vocabulary, H heads, P head size, G groups, N state or size of keys, K
chunks of Q, or symbol fields.
"""

import math
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..configuration_trm import TRMConfig
from ..delta_trm import chunk_size
from ..mamba2_trm import CHUNK, ONE_CHUNK_UP_TO
from ..operators_trm import OPERATORS, build_operator


def flops(config: TRMConfig, cycles: tuple[int, int] | None = None) -> int:
    """Of one supervision step of one puzzle, both heads included.

    Args:
        cycles: (H_cycles, L_cycles) of the step; None takes the config's.

    Raises:
        ValueError: the cost of an operator of a user's own cannot be counted.
    """
    H_cycles, L_cycles = (config.H_cycles, config.L_cycles) if cycles is None else cycles
    return H_cycles * _cycle_flops(config, L_cycles) + _head_flops(config)


def training_flops(config: TRMConfig, cycles: tuple[int, int] | None = None) -> int:
    """Of one supervision step of one puzzle in training: the last cycle and the heads also backward, twice a forward.

    Arguments and errors as for `flops`. The optimiser is not counted.
    """
    L_cycles = config.L_cycles if cycles is None else cycles[1]
    return flops(config, cycles) + 2 * (_cycle_flops(config, L_cycles) + _head_flops(config))


def _cycle_flops(config: TRMConfig, L_cycles: int) -> int:
    """The stack's, as often as it runs in a cycle."""
    stack = sum(_operator_flops(name, config) for name in config.block_operators)
    return (L_cycles + (config.num_latents == 2)) * stack  # one more for the answer latent


def _operator_flops(name: str, config: TRMConfig) -> int:
    """In all fields; an operator that mixes them says so itself."""
    cost = (OPERATOR_FLOPS.get(name) or own_flops(name))(config)
    mixes_fields = getattr(OPERATORS[name], "mixes_fields", False)
    return cost * (config.num_symbols if config.symbol_fields and not mixes_fields else 1)


def _head_flops(config: TRMConfig) -> int:
    outputs = config.num_symbols * (config.num_special_tokens + 1) if config.symbol_fields else config.vocab_size
    return 2 * config.hidden_size * (config.seq_len * outputs + 2)


def attention_flops(config: TRMConfig) -> int:
    S, D = config.num_positions, config.hidden_size
    return 2 * S * D * 4 * D + 2 * 2 * S * S * D


def mlp_flops(config: TRMConfig) -> int:
    return config.num_positions * _gated_mlp(config, config.hidden_size)


def mlp_t_flops(config: TRMConfig) -> int:
    return config.hidden_size * _gated_mlp(config, config.num_positions)


def mamba2_flops(config: TRMConfig) -> int:
    """in_proj, SSD, out_proj."""
    projections = 2 * config.num_positions * config.hidden_size * (config.mamba_d_in_proj + config.mamba_d_inner)
    return projections + ssd_flops(config)


def ssd_flops(config: TRMConfig) -> int:
    """The SSD of a Mamba-2 layer alone."""
    return _ssd(config, config.mamba_n_groups)


def mamba3_flops(config: TRMConfig) -> int:
    """As Mamba-2; no two heads share their scores, since each is turned by its own step sizes."""
    outputs = 2 * config.mamba_d_inner + 2 * config.mamba_n_groups * config.mamba_d_state
    outputs += 3 * config.mamba_n_heads + config.mamba_n_angles + config.mamba_d_inner
    return 2 * config.num_positions * config.hidden_size * outputs + _ssd(config, config.mamba_n_heads)


def delta_flops(config: TRMConfig) -> int:
    """Six projections and o_proj; of each chunk two matrices of keys and queries, the inverse, and their uses."""
    S, H, N, P = config.num_positions, config.delta_heads, config.delta_key_dim, config.delta_value_dim
    projections = 2 * S * config.hidden_size * H * (2 * N + 3 * P + 2)
    Q = chunk_size(S)
    K = -(-S // Q)
    inverse = 2 * Q * (Q * Q - 4) // 3  # two products of each pair of blocks, from blocks of 2
    chunk = 2 * Q * Q * (2 * N + 2 * P) + inverse
    states = (
        3 * 2 * Q * N * P + 2 * Q * Q * P
    )  # what a chunk adds; the next one corrects its values by it, and reads it
    return projections + H * (K * chunk + (K - 1) * states)


def conv2d_flops(config: TRMConfig) -> int:
    """Three projections of each cell, and its neighbourhood, channel by channel."""
    return 2 * config.seq_len * config.hidden_size * (3 * config.hidden_size + config.conv2d_kernel**2)


def axial_flops(config: TRMConfig) -> int:
    """Projections of each cell, and its scores and values of the cells of each of its lines."""
    (height, width), channels = config.grid_shape(config.seq_len), config.axial_heads * config.axial_head_dim
    lengths = {"rows": width, "columns": height, "boxes": math.isqrt(height) * math.isqrt(width)}
    seen = sum(lengths[kind] for kind in config.axial_lines)
    projected = 4 * len(config.axial_lines) * channels * config.hidden_size
    return 2 * config.seq_len * (projected + 2 * seen * channels)


def symbols_flops(config: TRMConfig) -> int:
    K, S, D = config.num_symbols, config.num_positions, config.hidden_size
    return 2 * K * S * D * D if config.symbol_mixing == "mean" else 2 * K * S * D * 4 * D + 2 * 2 * S * K * K * D


def own_flops(name: str) -> Callable[[TRMConfig], int]:
    """The cost of an operator of a user's own: what its class says, or what FlopCounterMode counts."""

    def counted(config: TRMConfig) -> int:
        shape = config.latent_shape[0 if getattr(OPERATORS[name], "mixes_fields", False) else -2 :]
        try:
            with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
                build_operator(name, config)(torch.empty(1, *shape))
        except Exception as error:
            raise ValueError(
                f"the cost of the operator {name!r} is not known: its class has no static method flops(config), and "
                f"its forward does not run without data ({type(error).__name__}: {error})"
            ) from error
        return counter.get_total_flops()

    def said(config: TRMConfig) -> int:
        return int(OPERATORS[name].flops(config, **config.operator_options.get(name, {})))

    return said if hasattr(OPERATORS[name], "flops") else counted


def _ssd(config: TRMConfig, groups: int) -> int:
    """See mamba2_trm.ssd_one_chunk and ssd_chunked for the products."""
    S, N, inner = config.num_positions, config.mamba_d_state, config.mamba_d_inner  # inner: H * P
    if S <= ONE_CHUNK_UP_TO:
        return _dual_form(S, groups, N, inner)
    K = -(-S // CHUNK)
    states = 2 * K * CHUNK * inner * N  # what a chunk adds to the state; as much again to read it
    return K * _dual_form(CHUNK, groups, N, inner) + 2 * states


def _dual_form(length: int, groups: int, state: int, inner: int) -> int:
    """C B^T of each group, and the weighted sums over positions of all channels."""
    return 2 * length * length * (groups * state + inner)


def _gated_mlp(config: TRMConfig, width: int) -> int:
    return 2 * 3 * width * config.inner_width(width)


OPERATOR_FLOPS: dict[str, Callable[[TRMConfig], int]] = {
    "attention": attention_flops,
    "mamba2": mamba2_flops,
    "mlp_t": mlp_t_flops,
    "mlp": mlp_flops,
    "mamba3": mamba3_flops,
    "delta": delta_flops,
    "conv_mlp": mlp_flops,
    "conv2d": conv2d_flops,
    "axial": axial_flops,
    "symbols": symbols_flops,
}
