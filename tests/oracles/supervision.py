"""One supervision step of the whole model from its state dict. Source: arXiv 2510.04871, section 4, and its code.

e = puzzle prefix ++ token embeddings        the puzzle's row, zero-padded to prefix * D numbers, cut into positions
[e = e + the puzzle's row, at the cells      with puzzle_conditioning "cells"]
e = e + step embedding                       of steps 1, 2, ..., the last one for all later ones (arXiv 2511.16886)
x = sqrt(D) * e                              with added positions: sqrt(D) * (e + positions) / sqrt(2)
z_H, z_L = recursion(x)                      from H_init, L_init at the first step
with symbol fields (arXiv 2603.02193): the embedding of a cell's role in each field, [B, K, S, D]; see `heads`
logits = lm_head(z_H) behind the prefix      halt logit = the first output of q_head at position 0
                                              [with halt_pooling "mean": of the mean behind the prefix]
"""

import math
from typing import Any

import torch
from torch import Tensor

from .losses import step_loss
from .operators import Weights, stack
from .recursion import one_latent, two_latents

State = tuple[Tensor, Tensor | None]


def embed(weights: Weights, config: Any, input_ids: Tensor, puzzle_ids: Tensor, step: int = 1) -> Tensor:
    D, prefix = config.hidden_size, config.puzzle_prefix_len
    table, sequences = weights["model.embed_tokens.weight"], []
    for tokens, puzzle in zip(input_ids, puzzle_ids):
        before = []
        if prefix:
            row, *numbers = weights["model.puzzle_emb.weight"][puzzle].split([D, *[1] * (row_width(config) - D)])
            before = list(torch.cat([row, row.new_zeros(prefix * D - D)]).reshape(prefix, D))
        shown = prefix and config.puzzle_conditioning == "cells"
        if config.symbol_fields:
            fields = []
            for k, symbol in enumerate(range(config.num_special_tokens, config.vocab_size)):
                own = [before[0] + named(config, numbers, k), *before[1:]] if prefix else []
                cells = [table[role(config, int(token), symbol)] for token in tokens]
                fields.append(torch.stack(own + [cell + own[0] if shown else cell for cell in cells]))
            sequences.append(torch.stack(fields))
        else:
            cells = [table[token] + before[0] if shown else table[token] for token in tokens]
            sequences.append(torch.stack(before + cells))
    e = torch.stack(sequences)
    if config.num_step_embeddings:
        e = e + weights["model.embed_steps.weight"][min(step, config.num_step_embeddings) - 1]
    if config.position_embedding == "learned":
        e = (e + weights["model.embed_positions.weight"]) / math.sqrt(2)
    if config.position_embedding == "sincos2d":
        e = (e + config.position_std / math.sqrt(D) * waves(config).to(e)) / math.sqrt(2)
    return math.sqrt(D) * e


def waves(config: Any) -> Tensor:
    """[S, D]: of the row, then of the column: D/4 sines, D/4 cosines; wave p is theta^(p / (D/4)) boxes long.

    Rows and columns are counted in boxes: of a grid of n rows a box has sqrt(n). Prefix position i of n is at (i - n,
    i - n). Times sqrt(2).
    """
    quarter, prefix = config.hidden_size // 4, config.puzzle_prefix_len
    width = config.grid_width or math.isqrt(config.seq_len)
    height = config.seq_len // width
    places = [(i - prefix, i - prefix) for i in range(prefix)]
    places += [(cell // width, cell % width) for cell in range(config.seq_len)]
    table = []
    for row, column in places:
        entries: list[float] = []
        for place in (row / math.sqrt(height), column / math.sqrt(width)):
            turns = [2 * math.pi * place / config.rope_theta ** (p / quarter) for p in range(quarter)]
            entries += [math.sin(turn) for turn in turns] + [math.cos(turn) for turn in turns]
        table.append([math.sqrt(2) * entry for entry in entries])
    return torch.tensor(table, dtype=torch.float64)


def row_width(config: Any) -> int:
    """With symbol fields W numbers for each symbol follow the vector (public code of arXiv 2603.02193: 1)."""
    symbols = config.vocab_size - config.num_special_tokens if config.symbol_fields else 0
    return config.hidden_size + symbols * config.puzzle_symbol_width


def named(config: Any, numbers: list[Tensor], k: int) -> Tensor:
    """[D]: symbol k's numbers, each as often as there are channels for it."""
    width = config.puzzle_symbol_width
    return torch.cat([numbers[k * width + w].expand(config.hidden_size // width) for w in range(width)])


def role(config: Any, token: int, symbol: int) -> int:
    """Of a cell in a symbol's field: the special token itself, "this symbol is given", "another symbol is given"."""
    special = config.num_special_tokens
    return token if token < special else special if token == symbol else special + 1


def heads(weights: Weights, config: Any, z_H: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and halt logits. With symbol fields: a symbol's is read of its field, all else of the fields' mean."""
    out, w, b = weights["lm_head.weight"], weights["q_head.weight"][0], weights["q_head.bias"][0]
    if not config.symbol_fields:
        cells = z_H[:, config.puzzle_prefix_len :]
        read = z_H[:, 0] if config.halt_pooling == "first" else cells.sum(1) / cells.shape[1]
        return cells @ out.T, read @ w + b
    cells = z_H[:, :, config.puzzle_prefix_len :]
    special = cells.mean(1) @ out[: config.num_special_tokens].T
    symbols = [field @ out[-1] for field in cells.unbind(1)]
    return torch.cat([special, torch.stack(symbols, dim=2)], dim=2), cells.mean(dim=(1, 2)) @ w + b


def initial_state(weights: Weights, config: Any, like: Tensor) -> State:
    z_H = weights["model.H_init"] + torch.zeros_like(like)
    return z_H, weights["model.L_init"] + torch.zeros_like(like) if config.num_latents == 2 else None


def supervision_step(
    weights: Weights,
    config: Any,
    input_ids: Tensor,
    puzzle_ids: Tensor,
    labels: Tensor,
    state: State | None,
    step: int = 1,
) -> tuple[Tensor, Tensor, Tensor, State]:
    """loss, logits [B, L, V], halt logits [B] and the state to carry (cut off), as the papers define them.

    input_ids: what this step, number `step`, reads: the puzzle, or the answer fed back by `feed_back`.
    """
    x = embed(weights, config, input_ids, puzzle_ids, step)
    own = {key.removeprefix("model.stack."): value for key, value in weights.items() if key.startswith("model.stack.")}
    z_H, z_L = initial_state(weights, config, x) if state is None else state

    def apply(h: Tensor) -> Tensor:
        return stack(own, config, h)

    if z_L is None:
        z_H, z_L = one_latent(apply, z_H, x, config.H_cycles, config.L_cycles)
    else:
        z_H, z_L = two_latents(apply, z_H, z_L, x, config.H_cycles, config.L_cycles)
    logits, halt_logits = heads(weights, config, z_H)
    return (
        step_loss(logits, halt_logits, labels),
        logits,
        halt_logits,
        (z_H.detach(), None if z_L is None else z_L.detach()),
    )


def feed_back(config: Any, puzzle: Tensor, logits: Tensor) -> Tensor:
    """What the next step reads (arXiv 2511.16886): the answer, the given cells kept where a blank token is known."""
    answers = []
    for cells, rows in zip(puzzle.tolist(), logits.tolist()):
        best = [max(range(len(row)), key=row.__getitem__) for row in rows]
        blank = config.blank_token_id
        answers.append([cell if blank is not None and cell != blank else new for cell, new in zip(cells, best)])
    return torch.tensor(answers)
