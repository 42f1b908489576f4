"""The published model from its own state dict, written out. Source: arXiv 2510.04871, public code models/.

Names, shapes and settings are the reference's (arch: its YAML as a dictionary, with seq_len and vocab_size), nothing of
ours is used. Puzzle by puzzle and head by head; every tensor is computed in the type of the weights.

    e = the puzzle's row, zero-padded and cut into puzzle_emb_len rows of D, then the rows of the tokens
    x = sqrt(D) e, with learned positions sqrt(D) (e + positions) / sqrt(2)
    level(h, injected): h = h + injected, then for each layer h = norm(h + mixer(h)), h = norm(h + swiglu(h))
    step: H_cycles times (L_cycles times z_L = level(z_L, z_H + x), then z_H = level(z_H, z_L)); gradient: the last only
    logits = lm_head z_H behind the prefix; halt logit = the first output of q_head at position 0
    loss = sum over puzzles of (stablemax cross-entropy / number of labels + 0.5 binary cross-entropy of "all right")

Shapes: B puzzles, L cells, S positions, D channels, V token ids.
"""

import math
from typing import Any

import torch
from torch import Tensor

StateDict = dict[str, Tensor]
Arch = dict[str, Any]
IGNORED = -100


def inner_width(expansion: float, width: int) -> int:
    return math.ceil(round(expansion * width * 2 / 3) / 256) * 256


def prefix_length(arch: Arch) -> int:
    return arch["puzzle_emb_len"] or math.ceil(arch["puzzle_emb_ndim"] / arch["hidden_size"])


def random_state_dict(arch: Arch, rows: int = 1, dtype: torch.dtype = torch.float32, seed: int = 0) -> StateDict:
    """Random weights of the published scale, the halting head and the table included, which training starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    D, V, E = arch["hidden_size"], arch["vocab_size"], arch["puzzle_emb_ndim"]
    S = arch["seq_len"] + prefix_length(arch)

    def draw(*shape: int, std: float) -> Tensor:
        return (std * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)

    state = {"embed_tokens.embedding_weight": draw(V, D, std=D**-0.5), "lm_head.weight": draw(V, D, std=D**-0.5)}
    state |= {"q_head.weight": draw(2, D, std=D**-0.5), "q_head.bias": draw(2, std=1)}
    if E:
        state["puzzle_emb.weights"] = draw(rows, E, std=D**-0.5)
    if arch["pos_encodings"] == "learned":
        state["embed_pos.embedding_weight"] = draw(S, D, std=D**-0.5)
    for i in range(arch["L_layers"]):
        start = f"L_level.layers.{i}"
        if arch["mlp_t"]:
            G = inner_width(arch["expansion"], S)
            state[f"{start}.mlp_t.gate_up_proj.weight"] = draw(2 * G, S, std=S**-0.5)
            state[f"{start}.mlp_t.down_proj.weight"] = draw(S, G, std=G**-0.5)
        else:
            state[f"{start}.self_attn.qkv_proj.weight"] = draw(3 * D, D, std=D**-0.5)
            state[f"{start}.self_attn.o_proj.weight"] = draw(D, D, std=D**-0.5)
        F = inner_width(arch["expansion"], D)
        state[f"{start}.mlp.gate_up_proj.weight"] = draw(2 * F, D, std=D**-0.5)
        state[f"{start}.mlp.down_proj.weight"] = draw(D, F, std=F**-0.5)
    return state | {"H_init": draw(D, std=1), "L_init": draw(D, std=1)}


def normed(x: Tensor, eps: float) -> Tensor:
    """Over the last axis, without weight."""
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) / x.shape[-1] + eps)


def swiglu(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    gate, value = up[: len(up) // 2], up[len(up) // 2 :]
    g = x @ gate.T
    return (g / (1 + torch.exp(-g)) * (x @ value.T)) @ down.T


def rotated(x_SP: Tensor, theta: float) -> Tensor:
    """Row s: the plane (p, p + P/2) is turned by the angle s / theta^(2p/P)."""
    S, P = x_SP.shape
    turns = torch.tensor([[s / theta ** (2 * p / P) for p in range(P // 2)] for s in range(S)], dtype=torch.float64)
    cos, sin = turns.cos().to(x_SP.dtype), turns.sin().to(x_SP.dtype)
    a, b = x_SP[:, : P // 2], x_SP[:, P // 2 :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=1)


def self_attention(x_SD: Tensor, qkv: Tensor, out: Tensor, arch: Arch) -> Tensor:
    heads = arch["num_heads"]
    D = x_SD.shape[1]
    P = D // heads
    answers = []
    for h in range(heads):
        query, key, value = (x_SD @ qkv[kind * D + h * P : kind * D + (h + 1) * P].T for kind in range(3))
        if arch["pos_encodings"] == "rope":
            query, key = rotated(query, arch["rope_theta"]), rotated(key, arch["rope_theta"])
        weights = torch.exp(query @ key.T / math.sqrt(P))
        answers.append((weights / weights.sum(1, keepdim=True)) @ value)
    return torch.cat(answers, dim=1) @ out.T


def level(state: StateDict, arch: Arch, h_SD: Tensor, injected: Tensor) -> Tensor:
    """One pass of the stack over one puzzle."""
    eps = arch["rms_norm_eps"]
    h = h_SD + injected
    for i in range(arch["L_layers"]):
        own = {name: state[f"L_level.layers.{i}.{name}.weight"] for name in ("mlp.gate_up_proj", "mlp.down_proj")}
        if arch["mlp_t"]:
            up, down = (state[f"L_level.layers.{i}.mlp_t.{part}.weight"] for part in ("gate_up_proj", "down_proj"))
            h_DS = h.T
            h = normed(h_DS + swiglu(h_DS, up, down), eps).T
        else:
            qkv, out = (state[f"L_level.layers.{i}.self_attn.{part}.weight"] for part in ("qkv_proj", "o_proj"))
            h = normed(h + self_attention(h, qkv, out, arch), eps)
        h = normed(h + swiglu(h, own["mlp.gate_up_proj"], own["mlp.down_proj"]), eps)
    return h


def embedded(state: StateDict, arch: Arch, tokens_L: Tensor, puzzle: int) -> Tensor:
    D, prefix = arch["hidden_size"], prefix_length(arch)
    e = state["embed_tokens.embedding_weight"][tokens_L]
    if arch["puzzle_emb_ndim"]:
        row = state["puzzle_emb.weights"][puzzle]
        flat = torch.cat([row, row.new_zeros(prefix * D - len(row))])
        e = torch.cat([flat.reshape(prefix, D), e])
    if arch["pos_encodings"] == "learned":
        e = (e + state["embed_pos.embedding_weight"]) / math.sqrt(2)
    return math.sqrt(D) * e


def stablemax_cross_entropy(logits_LV: Tensor, labels_L: Tensor) -> Tensor:
    """Mean over the labels; s(x) = x + 1, below zero 1 / (1 - x)."""
    kept = labels_L != IGNORED
    logits, labels = logits_LV[kept], labels_L[kept]
    # The branch not taken is kept away from its pole, or its gradient would be NaN.
    s = torch.where(logits < 0, 1 / (1 - logits.clamp(max=0)), logits + 1)
    p = s[range(len(s)), labels] / s.sum(1)
    return -torch.log(p).sum() / max(len(labels), 1)


def supervision_step(
    state: StateDict, arch: Arch, inputs_BL: Tensor, puzzles_B: list[int], labels_BL: Tensor, carry: Any = None
) -> tuple[Tensor, Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """loss (a mean over the batch), logits [B, L, V], halt logits [B], and the carry: (z_H, z_L) of each puzzle."""
    loss, all_logits, halts, carried = 0.0, [], [], []
    for number, (tokens, puzzle, labels) in enumerate(zip(inputs_BL, puzzles_B, labels_BL)):
        x = embedded(state, arch, tokens, puzzle)
        z_H, z_L = (torch.zeros_like(x) + state[name] for name in ("H_init", "L_init"))
        if carry is not None:
            z_H, z_L = carry[number]
        for cycle in range(arch["H_cycles"]):
            for _ in range(arch["L_cycles"]):
                z_L = level(state, arch, z_L, z_H + x)
            z_H = level(state, arch, z_H, z_L)
            if cycle < arch["H_cycles"] - 1:
                z_H, z_L = z_H.detach(), z_L.detach()
        logits = (z_H @ state["lm_head.weight"].T)[prefix_length(arch) :]
        halt = state["q_head.weight"][0] @ z_H[0] + state["q_head.bias"][0]
        right = bool(((logits.argmax(-1) == labels) | (labels == IGNORED)).all())
        bce = torch.log1p(torch.exp(-halt if right else halt))
        loss = loss + stablemax_cross_entropy(logits, labels) + 0.5 * bce
        all_logits.append(logits)
        halts.append(halt)
        carried.append((z_H.detach(), z_L.detach()))
    return loss / len(inputs_BL), torch.stack(all_logits), torch.stack(halts), carried
