"""The reference's state dict: what its shapes say about the architecture, and its names in ours.

Source: models/recursive_reasoning/trm.py and models/layers.py of the public code of arXiv 2510.04871.

| reference (behind its prefix)                   | ours                                  | shape                      |
|-------------------------------------------------|---------------------------------------|----------------------------|
| embed_tokens.embedding_weight, lm_head.weight   | model.embed_tokens.weight, lm_head... | [V, D]                     |
| embed_pos.embedding_weight (learned positions)  | model.embed_positions.weight          | [S, D]                     |
| puzzle_emb.weights                              | model.puzzle_emb.weight               | [N, E], E <= D             |
| q_head.weight, q_head.bias                      | the same                              | [2, D], [2]                |
| H_init, L_init                                  | model.H_init, model.L_init            | [D]                        |
| L_level.layers.i.self_attn.qkv_proj, .o_proj    | model.stack.2i                        | [3D, D], [D, D]            |
| L_level.layers.i.mlp_t.gate_up_proj, .down_proj | model.stack.2i                        | [2G, S], [S, G]            |
| L_level.layers.i.mlp.gate_up_proj, .down_proj   | model.stack.2i+1                      | [2F, D], [D, F]            |

Shapes: V vocabulary, D hidden, S positions (prefix and grid), N rows of the table of E numbers, F and G inner widths.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from .checkpoint_file import ConversionError

TABLE = "puzzle_emb.weights"
TOKENS, POSITIONS = "embed_tokens.embedding_weight", "embed_pos.embedding_weight"
OUR_NAME = {
    TOKENS: "model.embed_tokens.weight",
    POSITIONS: "model.embed_positions.weight",
    TABLE: "model.puzzle_emb.weight",
    "lm_head.weight": "lm_head.weight",
    "q_head.weight": "q_head.weight",
    "q_head.bias": "q_head.bias",
    "H_init": "model.H_init",
    "L_init": "model.L_init",
}
MIXER = {"attention": ("self_attn", "qkv_proj", "o_proj"), "mlp_t": ("mlp_t", "gate_up_proj", "down_proj")}


@dataclass(frozen=True)
class Layout:
    """What the tensors say. `mixer` is "attention" or "mlp_t"; positions are None where no weight depends on them."""

    vocab_size: int
    hidden_size: int
    layers: int
    mixer: str
    inner: int
    positions: int | None
    inner_t: int | None
    learned_positions: bool
    table: tuple[int, int] | None

    def shapes(self) -> dict[str, list[int]]:
        """Every name of the state dict with its shape."""
        V, D, S = self.vocab_size, self.hidden_size, self.positions or 0
        shapes = {TOKENS: [V, D], "lm_head.weight": [V, D], "q_head.weight": [2, D], "q_head.bias": [2]}
        shapes |= {"H_init": [D], "L_init": [D]}
        if self.learned_positions:
            shapes[POSITIONS] = [S, D]
        if self.table is not None:
            shapes[TABLE] = list(self.table)
        module, first, last = MIXER[self.mixer]
        G = self.inner_t or 0
        mixing = ([3 * D, D], [D, D]) if self.mixer == "attention" else ([2 * G, S], [S, G])
        for layer in range(self.layers):
            start = f"L_level.layers.{layer}"
            shapes |= {f"{start}.{module}.{first}.weight": mixing[0], f"{start}.{module}.{last}.weight": mixing[1]}
            shapes |= {f"{start}.mlp.gate_up_proj.weight": [2 * self.inner, D]}
            shapes |= {f"{start}.mlp.down_proj.weight": [D, self.inner]}
        return shapes

    def our_names(self) -> dict[str, str]:
        """Reference's name -> ours, for every name of the state dict."""
        return {name: our_name(name) for name in self.shapes()}


def our_name(name: str) -> str:
    match = re.fullmatch(r"L_level\.layers\.(\d+)\.(\w+)\.(.+)", name)
    if match is None:
        return OUR_NAME[name]
    return f"model.stack.{2 * int(match[1]) + (match[2] == 'mlp')}.{match[3]}"


def read_layout(tensors: Mapping[str, Tensor], source: str) -> Layout:
    """Infer the layout from some tensors and check all of them against it.

    Raises:
        ConversionError: the weights that are missing, unknown or of another shape.
    """
    mixers = [mixer for mixer, (module, _, _) in MIXER.items() if any(f".{module}." in name for name in tensors)]
    if len(mixers) > 1:
        raise ConversionError(f"{source}: has layers with self_attn and with mlp_t; the reference has either")
    mixer = mixers[0] if mixers else "attention"
    module, _, last = MIXER[mixer]
    numbers = {int(match[1]) for name in tensors if (match := re.match(r"L_level\.layers\.(\d+)\.", name))}
    _refuse_gaps(numbers, source)
    V, D = _shape(tensors, TOKENS, source)
    learned = _shape(tensors, POSITIONS, source)[0] if POSITIONS in tensors else None
    mixed = _shape(tensors, f"L_level.layers.0.{module}.{last}.weight", source)
    positions, inner_t = (mixed[0], mixed[1]) if mixer == "mlp_t" else (learned, None)
    rows, width = _shape(tensors, TABLE, source) if TABLE in tensors else (0, 0)
    layout = Layout(
        vocab_size=V,
        hidden_size=D,
        layers=max(numbers) + 1,
        mixer=mixer,
        inner=_shape(tensors, "L_level.layers.0.mlp.down_proj.weight", source)[1],
        positions=positions,
        inner_t=inner_t,
        learned_positions=learned is not None,
        table=(rows, width) if TABLE in tensors else None,
    )
    _compare(tensors, layout, source)
    return layout


def _refuse_gaps(numbers: set[int], source: str) -> None:
    """Layers are numbered from 0. One stray number does not make millions of layers, whose names would be listed."""
    for expected, number in enumerate(sorted(numbers)):
        if number != expected:
            raise ConversionError(
                f"{source}: has weights of L_level.layers.{number}, but layer {expected} is missing; allowed: layers "
                f"0 to {len(numbers) - 1} for {len(numbers)} of them"
            )


def _shape(tensors: Mapping[str, Tensor], name: str, source: str) -> tuple[int, int]:
    """[rows, columns] of a matrix that every checkpoint must have."""
    if name not in tensors:
        raise ConversionError(f"{source}: 1 weight missing ({name})")
    if tensors[name].ndim != 2:
        raise ConversionError(f"{source}: {name} is {list(tensors[name].shape)}; allowed: two dimensions")
    rows, columns = tensors[name].shape
    return rows, columns


def _compare(tensors: Mapping[str, Tensor], layout: Layout, source: str) -> None:
    expected = layout.shapes()
    wrong = [
        f"{name} {list(tensors[name].shape)} instead of {shape}"
        for name, shape in expected.items()
        if name in tensors and list(tensors[name].shape) != shape
    ]
    problems = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "unknown": sorted(tensors.keys() - expected.keys()),
        "of another shape": wrong,
    }
    found = [
        f"{len(names)} weight{'s' if names[1:] else ''} {what} ({', '.join(names[:3])}{', ...' if names[3:] else ''})"
        for what, names in problems.items()
        if names
    ]
    if found:
        raise ConversionError(
            f"{source}: is no TRM of {layout.layers} {layout.mixer} layers, hidden_size={layout.hidden_size}: "
            f"{'; '.join(found)}"
        )
