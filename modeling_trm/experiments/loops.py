"""A looped pure Mamba-2 model: one small stack fed its own output N times, and the switches that may keep it alive.

The public experiment is known as recursive Mamba loops: trained with a few loops and run for more, the latent turns to
"cognitive static". Said to cure it: the input injected at every loop, a rotary phase over the loop's number (a learned
table of numbers has no rows past the trained depth), the state normalised after every loop, a loss at every loop.
Tried besides: training that goes on from its own detached states, and so sees depths beyond one step's (see `Arm`).

    z_0 = H_init
    h   = z_{n-1} + x    in every loop with `input_injection`, else in the first alone
    z_n = F(h)           with `loop_norm` z_n = rms_norm(F(h))
    answer after loop n = head(rms_norm(z_n))

F is the stack of the preset "mamba2" as an ordinary Mamba language model runs it, pre-norm: h <- h + f(rms_norm(h)) for
each operator f. TRM's own stack is post-norm, h <- rms_norm(h + f(h)): it normalises inside every loop, so it cannot
run without `loop_norm`; one arm has it for reference. With `loop_index` what the operators read is rotated,
f(R_n rms_norm(h)), where R_n turns the channel pair (i, i + D/2) by the angle n theta^(-2i/D). As with the rotary
embedding of positions the residual stream itself is not rotated: its frame stays the same for the answer head, and the
angle after n loops is n, not 1 + 2 + ... + n, times the pair's frequency.

Two departures from the preset, both because a small model must learn within minutes on a CPU:
- Mamba-2 is causal, so a cell would know only the cells before it. Every second Mamba-2 therefore reads the cells from
  last to first, as bidirectional Mambas do. Giving the puzzle twice and answering the second copy, which needs no such
  change, took twice the time a step and learnt far less (loss 1.86 after 400 steps, against 1.26).
- mamba_ssm's initial decay rates and step sizes are drawn for dozens of heads, some of which remember long. The single
  head here starts with a memory of 1 / (A dt) = 50 cells.
Where a cell is (row, column, box) are three small tables whose vectors are added, and the answer head starts as the
token embedding (`head_init` of TRMConfig).

Shapes: B puzzles, L cells, D hidden, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..configuration_trm import TRMConfig
from ..layers_trm import apply_rotary, rms_norm, rotary_tables, truncated_normal_
from ..mamba2_trm import Mamba2
from ..operators_trm import Stack
from ..pretrained_trm import TRMPreTrainedModel

# Sizes that train within minutes on one CPU thread.
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "mamba_d_state": 32,
    "mamba_expand": 1,
    "mamba_head_dim": 64,
    "mlp_expansion": 1.5,
    "mlp_multiple_of": 32,
}
START_RATE, START_STEP = 0.2, 0.1  # A and dt of every head
CARRIES = 4


@dataclass(frozen=True)
class Arm:
    """One way to loop: the three switches, how the stack is normalised, and what a training step sees.

    supervise: "last", the loss after the last of its loops; "every", after each of them; "carried", after the last, and
    the next step goes on from the detached state with the same puzzles, CARRIES times, as TRM is trained.
    """

    input_injection: bool = False
    loop_index: bool = False
    loop_norm: bool = False
    stack: Literal["pre-norm", "post-norm"] = "pre-norm"
    supervise: Literal["last", "every", "carried"] = "last"


ARMS: dict[str, Arm] = {
    "bare": Arm(),
    "index": Arm(loop_index=True),
    "norm": Arm(loop_norm=True),
    "index-norm": Arm(loop_index=True, loop_norm=True),
    "inject": Arm(input_injection=True),
    "inject-index": Arm(input_injection=True, loop_index=True),
    "inject-norm": Arm(input_injection=True, loop_norm=True),
    "inject-index-norm": Arm(input_injection=True, loop_index=True, loop_norm=True),
    "inject-index-norm-every": Arm(input_injection=True, loop_index=True, loop_norm=True, supervise="every"),
    "inject-norm-every": Arm(input_injection=True, loop_norm=True, supervise="every"),
    "inject-norm-carried": Arm(input_injection=True, loop_norm=True, supervise="carried"),
    "trm-inject": Arm(input_injection=True, stack="post-norm"),
    "trm-inject-carried": Arm(input_injection=True, stack="post-norm", supervise="carried"),
}


class LoopedModel(TRMPreTrainedModel):
    """The model of an arm; `config` as made by `loop_config`."""

    H_init: Tensor

    def __init__(self, config: TRMConfig, arm: Arm) -> None:
        super().__init__(config)
        self.arm, D = arm, config.hidden_size
        self.side = math.isqrt(config.seq_len)
        self.embed_tokens = nn.Embedding(config.vocab_size, D)
        self.embed_places = nn.Embedding(3 * self.side, D)
        self.stack = Stack(config)
        self.backwards = reads_backwards(config.block_operators)
        self.lm_head = nn.Linear(D, config.vocab_size, bias=False)
        self.register_buffer("H_init", torch.empty(D))
        self.post_init()
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        truncated_normal_(self.H_init, self.config.initial_state_std)
        self.lm_head.weight.copy_(self.embed_tokens.weight)
        for operator in self.stack:
            if isinstance(operator, Mamba2):
                operator.A_log.fill_(math.log(START_RATE))
                operator.dt_bias.fill_(math.log(math.expm1(START_STEP)))  # inverse of softplus

    def embed(self, input_ids_BL: Tensor) -> Tensor:
        """x [B, L, D]: a sum of four vectors (token, row, column, box) at unit scale."""
        places_LD = self.embed_places(places(self.side, input_ids_BL.device)).sum(1)
        return (self.embed_tokens(input_ids_BL) + places_LD) * (self.config.hidden_size / 4) ** 0.5

    def loops(self, input_ids_BL: Tensor, number: int, state: Tensor | None = None, done: int = 0) -> Iterator[Tensor]:
        """z_n [B, L, D] for the next `number` loops; `state` is z after the `done` loops before, None for none."""
        x_BLD = self.embed(input_ids_BL)
        cos_ND, sin_ND = rotary_tables(done + number + 1, self.config.hidden_size, self.config.rope_theta, x_BLD)
        z_BLD = self.H_init.expand_as(x_BLD) if state is None else state
        for n in range(done + 1, done + number + 1):
            h_BLD = z_BLD + x_BLD if n == 1 or self.arm.input_injection else z_BLD
            z_BLD = self.apply_stack(h_BLD, (cos_ND[n], sin_ND[n]) if self.arm.loop_index else None)
            yield z_BLD

    def apply_stack(self, h_BLD: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        """F of the arm, and its `loop_norm`; `rotation` the cosines and sines [D] of this loop."""
        eps, post_norm = self.config.rms_norm_eps, self.arm.stack == "post-norm"
        for operator, backwards in zip(self.stack, self.backwards):
            read_BLD = h_BLD if post_norm else rms_norm(h_BLD, eps)
            read_BLD = read_BLD if rotation is None else apply_rotary(read_BLD, *rotation)
            h_BLD = h_BLD + (operator(read_BLD.flip(1)).flip(1) if backwards else operator(read_BLD))
            h_BLD = rms_norm(h_BLD, eps) if post_norm else h_BLD
        return rms_norm(h_BLD, eps) if self.arm.loop_norm else h_BLD

    def answer(self, z_BLD: Tensor) -> Tensor:
        """Logits [B, L, V]; the state is normalised before the head, as in language models."""
        return self.lm_head(rms_norm(z_BLD, self.config.rms_norm_eps))


def reads_backwards(block_operators: Sequence[str]) -> list[bool]:
    """For each operator of the stack: is it the second, fourth, ... Mamba-2?"""
    mambas = [block_operators[: i + 1].count("mamba2") for i in range(len(block_operators))]
    return [name == "mamba2" and count % 2 == 0 for name, count in zip(block_operators, mambas)]


def places(side: int, device: torch.device) -> Tensor:
    """int64 [L, 3]: the vectors of each cell's row, column and box in one table of 3 side rows."""
    cells_L = torch.arange(side * side, device=device)
    row_L, column_L, box = cells_L // side, cells_L % side, math.isqrt(side)
    return torch.stack((row_L, side + column_L, 2 * side + row_L // box * box + column_L // box), dim=1)


def loop_config(vocab_size: int, num_cells: int, **sizes: Any) -> TRMConfig:
    """The preset "mamba2" at SIZES, which `sizes` override, over a square grid."""
    fixed = {"vocab_size": vocab_size, "seq_len": num_cells, "puzzle_prefix_len": 0}
    return TRMConfig.from_preset("mamba2", **{**SIZES, **sizes, **fixed})
