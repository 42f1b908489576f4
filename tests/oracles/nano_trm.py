"""nano-trm's model from its own state dict, written out. Source: olivkoch/nano-trm, src/nn/models/trm.py and
src/nn/modules/trm_block.py.

Names and settings are its own (hyper: what Lightning stores as hyper_parameters). Puzzle by puzzle; the formulas of its
norm, SwiGLU, rotation and attention are the reference's, read and compared.

    e = the puzzle's row, zero-padded and cut into puzzle_emb_len rows of D, then the rows of the tokens; x = sqrt(D) e
    lenet(h, injected): h = h + injected, then for each layer h = norm(h + mixer(h)), h = norm(h + swiglu(h))
    step: H_cycles times (L_cycles times z_L = lenet(z_L, z_H + x), then z_H = lenet(z_H, z_L))
    logits = lm_head z_H behind the prefix; halt logit = q_head, its only output, at position 0

Shapes: B puzzles, L cells, S positions, D channels, V token ids.
"""

import math
from typing import Any

import torch
from torch import Tensor

from tests.oracles.reference import inner_width, normed, self_attention, swiglu

EPSILON = 1e-5
StateDict = dict[str, Tensor]
Hyper = dict[str, Any]


def random_state_dict(hyper: Hyper, seed: int = 0) -> StateDict:
    generator = torch.Generator().manual_seed(seed)
    D, V, E = hyper["hidden_size"], hyper["vocab_size"], hyper["puzzle_emb_dim"]
    S, width = hyper["seq_len"] + hyper["puzzle_emb_len"], inner_width(hyper["ffn_expansion"], D)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * shape[-1] ** -0.5

    state = {"input_embedding.embedding_weight": draw(V, D), "lm_head.weight": draw(V, D)}
    state |= {"q_head.weight": draw(1, D), "q_head.bias": draw(1), "z_H_init": draw(D), "z_L_init": draw(D)}
    if E:
        state["puzzle_emb.weights"] = draw(hyper["num_puzzles"], E)
    for i in range(hyper["num_layers"]):
        start = f"lenet.layers.{i}"
        if hyper["use_mlp_t"]:
            G = inner_width(hyper["ffn_expansion"], S)
            mixer = {"mlp_t.gate_up_proj": draw(2 * G, S), "mlp_t.down_proj": draw(S, G)}
        else:
            mixer = {"self_attn.qkv_proj": draw(3 * D, D), "self_attn.o_proj": draw(D, D)}
        mixer |= {"mlp.gate_up_proj": draw(2 * width, D), "mlp.down_proj": draw(D, width)}
        state |= {f"{start}.{name}.weight": tensor for name, tensor in mixer.items()}
    return state


def lenet(state: StateDict, hyper: Hyper, h_SD: Tensor, injected: Tensor) -> Tensor:
    arch = {"num_heads": hyper["num_heads"], "rope_theta": hyper["rope_theta"]}
    arch["pos_encodings"] = "rope" if hyper["pos_emb_type"] == "1d" else "none"
    h = h_SD + injected
    for i in range(hyper["num_layers"]):
        weight = {name: state[f"lenet.layers.{i}.{name}.weight"] for name in ("mlp.gate_up_proj", "mlp.down_proj")}
        if hyper["use_mlp_t"]:
            up, down = (state[f"lenet.layers.{i}.mlp_t.{part}.weight"] for part in ("gate_up_proj", "down_proj"))
            h = normed(h.T + swiglu(h.T, up, down), EPSILON).T
        else:
            qkv, out = (state[f"lenet.layers.{i}.self_attn.{part}.weight"] for part in ("qkv_proj", "o_proj"))
            h = normed(h + self_attention(h, qkv, out, arch), EPSILON)
        h = normed(h + swiglu(h, weight["mlp.gate_up_proj"], weight["mlp.down_proj"]), EPSILON)
    return h


def step(
    state: StateDict, hyper: Hyper, inputs_BL: Tensor, puzzles_B: list[int], carry: Any = None
) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """logits [B, L, V], halt logits [B], and the carry: (z_H, z_L) of each puzzle, detached."""
    D, prefix = hyper["hidden_size"], hyper["puzzle_emb_len"]
    logits, halts, carried = [], [], []
    for number, (tokens, puzzle) in enumerate(zip(inputs_BL, puzzles_B)):
        e = state["input_embedding.embedding_weight"][tokens]
        if hyper["puzzle_emb_dim"]:
            row = state["puzzle_emb.weights"][puzzle]
            e = torch.cat([torch.cat([row, row.new_zeros(prefix * D - len(row))]).reshape(prefix, D), e])
        x = math.sqrt(D) * e
        z_H, z_L = (torch.zeros_like(x) + state[name] for name in ("z_H_init", "z_L_init"))
        if carry is not None:
            z_H, z_L = carry[number]
        for cycle in range(hyper["H_cycles"]):
            if cycle == hyper["H_cycles"] - 1:
                z_H, z_L = z_H.detach(), z_L.detach()
            for _ in range(hyper["L_cycles"]):
                z_L = lenet(state, hyper, z_L, z_H + x)
            z_H = lenet(state, hyper, z_H, z_L)
        logits.append((z_H @ state["lm_head.weight"].T)[prefix:])
        halts.append(state["q_head.weight"][0] @ z_H[0] + state["q_head.bias"][0])
        carried.append((z_H.detach(), z_L.detach()))
    return torch.stack(logits), torch.stack(halts), carried
