"""The tiny recursive model as a transformers model. Source: arXiv 2510.04871; hybrids: arXiv 2602.12078.

Shapes: B batch, L cells of the grid, S = prefix + L positions the stack sees, D hidden, V vocabulary.

`forward` is one supervision step and a pure function: state in, state out. What loops over steps at inference is in
reasoning_trm.py, what loops in training is in training/.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from .configuration_trm import TRMConfig
from .layers_trm import autocast_dtype, sincos_table_2d, truncated_normal_
from .losses_trm import IGNORE_INDEX, halting_loss, is_exact, stablemax_cross_entropy
from .operators_trm import Stack
from .pipeline_trm import GridReasoningPipeline  # noqa: F401 (not used here: so that save_pretrained copies its file)
from .pretrained_trm import TRMPreTrainedModel
from .puzzle_table_trm import PuzzleTable
from .reasoning_trm import ReasoningMixin, answers_from_logits, as_ids
from .recursion_trm import RecursionState, recurse

HALT_LOSS_WEIGHT = 0.5  # arXiv 2510.04871, public code models/losses.py


@dataclass
class TRMOutput(ModelOutput):
    """loss: scalar or None; logits [B, L, V]; halt_logits [B]; state: the latents to carry, detached."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    halt_logits: Tensor | None = None
    state: RecursionState | None = None


class TRMModel(TRMPreTrainedModel):
    """Embedding, prefix and recursion, without heads."""

    H_init: Tensor
    L_init: Tensor | None
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\.", r"^q_head\."]  # the latents of a checkpoint with heads

    def __init__(self, config: TRMConfig) -> None:
        super().__init__(config)
        D = config.hidden_size
        rows = config.num_special_tokens + 2 if config.symbol_fields else config.vocab_size
        self.embed_tokens = nn.Embedding(rows, D)  # with symbol fields of roles: special tokens, this, another symbol
        learned = config.position_embedding == "learned"
        self.embed_positions = nn.Embedding(config.num_positions, D) if learned else None
        self.embed_steps = nn.Embedding(config.num_step_embeddings, D) if config.num_step_embeddings else None
        self.puzzle_emb = PuzzleTable(config.num_puzzles, config.puzzle_width) if config.puzzle_prefix_len else None
        self.stack = Stack(config)
        self.gradient_checkpointing = False  # set by transformers' gradient_checkpointing_enable
        # Persistent: they belong to the trained function, and transformers restores only persistent buffers.
        self.register_buffer("H_init", torch.empty(D))
        self.register_buffer("L_init", torch.empty(D) if config.num_latents == 2 else None)
        self.post_init()

    def init_parameters(self) -> None:
        """The fixed initial latents, and learned positions on their own scale."""
        for buffer in (self.H_init, self.L_init):
            if buffer is not None:
                truncated_normal_(buffer, self.config.initial_state_std)
        if self.embed_positions is not None:
            truncated_normal_(self.embed_positions.weight, self.config.position_std * self.config.hidden_size**-0.5)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed_tokens

    def initial_state(
        self, batch_size: int, dtype: torch.dtype | None = None, seq_len: int | None = None
    ) -> RecursionState:
        """H_init and L_init broadcast over batch, fields and positions, [B, (K,) S, D] (views; nothing is copied).

        Args:
            seq_len: cells of the grids; None takes the config's.
        """
        config, device = self.config, self.H_init.device
        seq_len = config.seq_len if seq_len is None else seq_len
        shape = (batch_size, *config.latent_shape_of(seq_len))
        latents = RecursionState(self.H_init, self.L_init).map(lambda z: z.to(dtype or z.dtype).expand(shape))
        if config.answer_feedback:
            latents = latents.replaced(answers=torch.zeros(batch_size, seq_len, dtype=torch.long, device=device))
        if config.answer_feedback or config.num_step_embeddings:
            latents = latents.replaced(steps=torch.zeros(batch_size, dtype=torch.long, device=device))
        return latents

    def embed(self, input_ids: Tensor, puzzle_ids: Tensor | None, state: RecursionState) -> Tensor:
        """sqrt(D) * (prefix ++ tokens [+ row] [+ step] [+ positions]), [B, S, D]; in autocast's dtype where that is on.

        With symbol fields [B, K, S, D]: of each cell its role in each field, of the puzzle also numbers of each field;
        all else is the same in every field.
        """
        if state.answers is not None and state.steps is not None:
            input_ids = torch.where(state.steps[:, None] == 0, input_ids, state.answers)
        fields = state.z_H.shape[1:-2]  # (K,) or ()
        x = self.embed_tokens(self._roles(input_ids, *fields) if fields else input_ids)
        if self.puzzle_emb is not None:
            ids = input_ids.new_zeros(len(input_ids)) if puzzle_ids is None else puzzle_ids
            row = self.puzzle_emb(ids)
            row = self._rows_of_fields(row, *fields) if fields else row
            # The first prefix position carries the row, the others are zero (the reference pads the flat row).
            prefix = F.pad(row.unsqueeze(-2), (0, 0, 0, self.config.puzzle_prefix_len - 1))
            x = x + row.unsqueeze(-2) if self.config.puzzle_conditioning == "cells" else x
            x = torch.cat((prefix, x), dim=-2)
        if self.embed_steps is not None and state.steps is not None:
            step_B1D = self.embed_steps(state.steps.clamp(max=self.config.num_step_embeddings - 1))[:, None]
            x = x + (step_B1D[:, None] if fields else step_B1D)
        positions = self._positions(input_ids.shape[1], x)
        if positions is not None:
            x = (x + positions) * 0.5**0.5
        x = x * self.config.hidden_size**0.5
        return x.to(autocast_dtype(x.device.type) or x.dtype)

    def _positions(self, cells: int, like: Tensor) -> Tensor | None:
        """[S, D], on the scale of the token embeddings; None where positions are not added to the input."""
        config = self.config
        if config.position_embedding != "sincos2d":
            return None if self.embed_positions is None else self.embed_positions.weight
        shape, D, theta = config.grid_shape(cells), config.hidden_size, float(config.rope_theta)
        scale = config.position_std * D**-0.5
        return (scale * sincos_table_2d(config.puzzle_prefix_len, shape, D, theta, like)).to(like.dtype)

    def _rows_of_fields(self, row_BE: Tensor, num_symbols: int) -> Tensor:
        """[B, K, D]: the vector that all fields share and each field's own numbers, by which a task names its colours.

        Source: the public code of arXiv 2603.02193, whose fields have one number each. Grids of another size have the
        numbers of as many symbols as they hold.
        """
        D, width = self.config.hidden_size, self.config.puzzle_symbol_width
        own_BKW = row_BE[:, D:].unflatten(1, (self.config.num_symbols, width))
        own_BKW = F.pad(own_BKW, (0, 0, 0, num_symbols - self.config.num_symbols))
        return row_BE[:, None, :D] + own_BKW[..., None].expand(-1, -1, -1, D // width).flatten(-2)

    def _roles(self, input_ids: Tensor, num_symbols: int) -> Tensor:
        """[B, K, L]: a special token's own id in every field; else whether the cell holds the field's symbol."""
        special, ids_B1L = self.config.num_special_tokens, input_ids[:, None]
        symbols_K1 = torch.arange(special, special + num_symbols, device=input_ids.device)[:, None]
        return torch.where(ids_B1L < special, ids_B1L, torch.where(ids_B1L == symbols_K1, special, special + 1))

    def forward(
        self,
        input_ids: Tensor,
        puzzle_ids: Tensor | None = None,
        state: RecursionState | None = None,
        cycles: tuple[int, int] | None = None,
    ) -> RecursionState:
        """One supervision step: the latents after H_cycles cycles, with the last cycle's gradient history.

        The answers that a model with `answer_feedback` reads next are left as they were: they come from the head of
        TRMForGridReasoning.

        Args:
            input_ids: [B, L] token ids. puzzle_ids: [B] rows of the puzzle table; None is the blank row 0.
            state: what the previous step left; None starts from H_init, L_init.
            cycles: (H_cycles, L_cycles) of this step; None takes the config's.

        Raises:
            ValueError: input_ids of another shape than [B, config.seq_len], unless the model answers other sizes (see
                TRMConfig.vocab_size_of); puzzle_ids or a state of other puzzles than B; on a CPU also ids out of range.
        """
        input_ids, puzzle_ids = self.checked(input_ids, puzzle_ids, state)
        state = self.initial_state(len(input_ids), seq_len=input_ids.shape[1]) if state is None else state
        x = self.embed(input_ids, puzzle_ids, state)
        H_cycles, L_cycles = (self.config.H_cycles, self.config.L_cycles) if cycles is None else cycles
        stack = partial(self.stack, prepared=self.stack.prepare(x))
        if self.gradient_checkpointing and self.training:
            stack = partial(self._gradient_checkpointing_func, stack)
        state = recurse(stack, state.map(lambda z: z.to(x.dtype)), x, H_cycles, L_cycles)
        return state.replaced(steps=None if state.steps is None else state.steps + 1)

    def checked(
        self, input_ids: Tensor, puzzle_ids: Tensor | None, state: RecursionState | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Both ids as int64. Raises TypeError for what are no ids, ValueError as `forward`."""
        input_ids, puzzle_ids = as_ids("input_ids", input_ids), as_ids("puzzle_ids", puzzle_ids, optional=True)
        if input_ids.ndim != 2:
            raise ValueError(f"input_ids has shape {list(input_ids.shape)}; allowed: [batch, cells]")
        try:
            vocab_size, shape = (
                of(input_ids.shape[1]) for of in (self.config.vocab_size_of, self.config.latent_shape_of)
            )
        except ValueError as error:
            raise ValueError(f"input_ids has shape {list(input_ids.shape)}: {error}") from error
        B = input_ids.shape[0]  # not len, which makes a number of what an export leaves open
        if puzzle_ids is not None and puzzle_ids.shape != (B,):
            raise ValueError(f"puzzle_ids has shape {list(puzzle_ids.shape)}; allowed: [{B}], one for each puzzle")
        if state is not None and state.z_H.shape[0] != B:
            raise ValueError(
                f"the state is of {state.z_H.shape[0]} puzzles, input_ids of {B}; allowed: the same puzzles"
            )
        if state is not None and state.z_H.shape[1:] != shape:
            raise ValueError(
                f"the state has latents of shape {list(state.z_H.shape[1:])}, grids of {input_ids.shape[1]} cells "
                f"{list(shape)}; begin with initial_state(batch_size, seq_len={input_ids.shape[1]}) or state=None"
            )
        if state is not None and (state.z_L is None) != (self.config.num_latents == 1):
            raise ValueError(
                f"the state has {2 - (state.z_L is None)} latents, the model num_latents={self.config.num_latents}"
            )
        if state is not None and not state.carries_as_much_as(self.initial_state(0)):
            raise ValueError(
                f"the state lacks answers or steps, which a model with answer_feedback={self.config.answer_feedback}, "
                f"num_step_embeddings={self.config.num_step_embeddings} reads; begin with initial_state() or "
                f"state=None, and pass on what each step returns"
            )
        _check_range("input_ids", input_ids, "vocab_size", vocab_size)
        if puzzle_ids is not None:
            _check_range("puzzle_ids", puzzle_ids, "num_puzzles", self.config.num_puzzles)
        return input_ids, puzzle_ids


def _check_range(name: str, ids: Tensor, field: str, size: int, no_id: int | None = None) -> None:
    """On the CPU alone: elsewhere the comparison would wait for the device at every step; a traced graph cannot ask."""
    if torch.compiler.is_compiling() or ids.device.type != "cpu":
        return
    ids = ids if no_id is None else ids[ids != no_id]
    if ids.numel() and (ids.min() < 0 or ids.max() >= size):
        besides = "" if no_id is None else f", and {no_id} where a cell has none, as in padding"
        raise ValueError(
            f"{name} holds {int(ids.min())}..{int(ids.max())}; allowed: 0..{size - 1} ({field}={size}){besides}"
        )


class TRMForGridReasoning(ReasoningMixin, TRMPreTrainedModel):
    """The model with its two heads: an answer for every cell, and whether that answer is right.

    AutoModel loads this class: the latents alone are of no use to anyone who asks for a TRM checkpoint.
    """

    def __init__(self, config: TRMConfig) -> None:
        super().__init__(config)
        self.model = TRMModel(config)
        outputs = config.num_special_tokens + 1 if config.symbol_fields else config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, outputs, bias=False)
        # Two outputs as in the reference, halt and continue; only halt is used (its no_ACT_continue).
        self.q_head = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self.lm_head and self.config.head_init == "embedding":
            init.copy_(module.weight, self.model.embed_tokens.weight[: len(module.weight)])
        if module is self.q_head:
            init.zeros_(module.weight)
            init.constant_(module.bias, float(self.config.halt_bias))

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def initial_state(
        self, batch_size: int, dtype: torch.dtype | None = None, seq_len: int | None = None
    ) -> RecursionState:
        return self.model.initial_state(batch_size, dtype, seq_len)

    def checked(self, input_ids: Tensor, puzzle_ids: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return self.model.checked(input_ids, puzzle_ids)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        puzzle_ids: Tensor | None = None,
        labels: Tensor | None = None,
        state: RecursionState | None = None,
        cycles: tuple[int, int] | None = None,
        output_hidden_states: bool | None = None,
    ) -> TRMOutput:
        """One supervision step.

        Args:
            input_ids: [B, L] token ids. puzzle_ids: [B] rows of the puzzle table; None is the blank row 0.
            labels: [B, L] token ids, IGNORE_INDEX where there is none; gives the reference's loss, stablemax
                cross-entropy + 0.5 * halting loss, averaged over the batch.
            state: what the previous step left, None for a fresh start.
            cycles: (H_cycles, L_cycles) of this step; None takes the config's (a depth curriculum trains with fewer).

        Returns:
            A TRMOutput; with return_dict=False, here or in the config, a tuple of what is not None in it.

        Raises:
            ValueError: output_hidden_states=True, which a recursion has none of; or inputs that do not fit the model.
        """
        if output_hidden_states:
            raise ValueError(
                "output_hidden_states=True: a recursion has no hidden states layer by layer; its latents after this "
                "step are output.state.z_H and output.state.z_L"
            )
        input_ids, labels = as_ids("input_ids", input_ids), as_ids("labels", labels, optional=True)
        latents = self.model(input_ids, puzzle_ids, state, cycles)
        logits, halt_logits = self.read_out(latents.z_H)
        loss = None
        if labels is not None:
            if labels.shape != input_ids.shape:
                raise ValueError(
                    f"labels has shape {list(labels.shape)}, input_ids {list(input_ids.shape)}; allowed: equal"
                )
            _check_range("labels", labels, "vocab_size", logits.shape[-1], IGNORE_INDEX)
            with torch.no_grad():
                exact = is_exact(logits, labels)
            token_loss, halt_loss = stablemax_cross_entropy(logits, labels), halting_loss(halt_logits, exact)
            loss = (token_loss + HALT_LOSS_WEIGHT * halt_loss).mean().float()
        carried = self.with_answers(latents.detach(), logits, input_ids)
        return TRMOutput(loss=loss, logits=logits, halt_logits=halt_logits, state=carried)

    def read_out(self, z_H: Tensor) -> tuple[Tensor, Tensor]:
        """What both heads make of a latent: logits [B, L, V], halt logits [B].

        With symbol fields one vector reads each field, its symbol's logit; what no relabelling changes, the logits of
        special tokens and halting, is read of the mean over the fields, halting of that over the cells too.
        """
        cells = z_H[..., self.config.puzzle_prefix_len :, :]
        if self.config.symbol_fields:
            logits_BKLO = self.lm_head(cells)
            special_BLO, symbols_BLK = logits_BKLO[..., :-1].mean(1), logits_BKLO[..., -1].transpose(1, 2)
            return torch.cat((special_BLO, symbols_BLK), dim=-1), self.q_head(cells.mean((1, 2)))[:, 0]
        pooled = cells.mean(1) if self.config.halt_pooling == "mean" else z_H[:, 0]
        return self.lm_head(cells), self.q_head(pooled)[:, 0]

    def with_answers(self, state: RecursionState, logits: Tensor, input_ids: Tensor) -> RecursionState:
        """The state with the answers of these logits, where the model reads them in its next step."""
        if state.answers is None:
            return state
        return state.replaced(answers=answers_from_logits(logits, input_ids, self.config.blank_token_id).detach())
