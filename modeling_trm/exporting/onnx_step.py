"""One supervision step as an ONNX graph: embedding, the recursion as loops around the stack, heads.

PyTorch's exporter translates the parts; the loops are written here, because a traced recursion would repeat the
stack H_cycles * (L_cycles + 1) times (arXiv 2510.04871, section 4; recursion_trm.py):

    x = embed(input_ids, puzzle_ids)
    Loop H_cycles:  Loop L_cycles:  z_L = stack(z_L + z_H + x)          z_H = stack(z_H + z_L)
    logits, halt_logits = heads(z_H)

With a single latent it is one loop of H_cycles * L_cycles, z_H = stack(z_H + x). The bodies of loops see the weights
of the graph around them, so these are there once.

Shapes: B batch (free), L cells, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from ..configuration_trm import TRMConfig
from ..modeling_trm import TRMForGridReasoning
from .programs import BATCH, Parts, example_inputs, export, quiet, translating

LARGEST_FILE = 2**31 - 2**20  # a protobuf ends at 2 GiB; what is larger keeps its weights in a file beside it
WEIGHTS_SUFFIX = ".weights"


@dataclass(frozen=True)
class Part:
    """The nodes of a graph that lead from some of its inputs to some of its outputs; they can be put into another
    graph several times, beside the same weights."""

    graph: GraphProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def ancestors(self) -> list[NodeProto]:
        """The nodes that the outputs need, in the graph's order."""
        needed, nodes = set(self.outputs), []
        for node in reversed(self.graph.node):
            if needed.intersection(node.output):
                needed.update(node.input)
                nodes.append(node)
        return nodes[::-1]

    def placed(self, place: str, inputs: Sequence[str], outputs: Sequence[str]) -> Iterator[NodeProto]:
        """Copies of the nodes, between these values; `place` keeps what they compute apart from other copies."""
        names = {weight.name: weight.name for weight in self.graph.initializer} | {"": ""}
        names |= dict(zip(self.inputs, inputs, strict=True))
        ends = dict(zip(self.outputs, outputs, strict=True)) | {"": ""}
        for node in self.ancestors():
            names |= {name: ends.get(name, f"{place}/{name}") for name in node.output}
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [names[name] for name in node.input]
            copy.output[:] = [names[name] for name in node.output]
            copy.name = f"{place}/{node.name}"
            del copy.metadata_props[:]  # the exporter's notes, with paths of this machine
            yield copy


def step_graph(model: TRMForGridReasoning) -> ModelProto:
    """The ONNX model of one supervision step (inputs and outputs: programs.py). The model stays as it is."""
    config = model.config
    L, V, latent = config.seq_len, config.vocab_size, list(config.latent_shape)
    latents = ["z_H", "z_L"][: config.num_latents]
    translated = _translate(model)
    parts = translated.graph
    embed = Part(parts, ("input_ids", "puzzle_ids"), ("x",))
    stack = Part(parts, ("h",), ("stacked",))
    heads = Part(parts, ("z_H",), ("logits", "halt_logits"))
    graph = helper.make_graph(
        [
            *embed.placed("embed", ["input_ids", "puzzle_ids"], ["x"]),
            *(_two_latents(stack, latent) if config.num_latents == 2 else _one_latent(stack, latent)),
            *heads.placed("heads", ["next_z_H"], ["logits", "halt_logits"]),
        ],
        "supervision_step",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, [BATCH, L]),
            helper.make_tensor_value_info("puzzle_ids", TensorProto.INT64, [BATCH]),
            *(_floats(name, latent) for name in latents),
        ],
        [_floats("logits", [L, V]), _floats("halt_logits", []), *(_floats(f"next_{name}", latent) for name in latents)],
        [*parts.initializer, *_counts(config)],
    )
    versions = {"opset_imports": list(translated.opset_import), "ir_version": translated.ir_version}
    return helper.make_model(graph, producer_name="modeling_trm", **versions)


def _translate(model: TRMForGridReasoning) -> ModelProto:
    """The graph of Parts, its values under the names of Parts' arguments and results."""
    input_ids, puzzle_ids, z_H, *_ = example_inputs(model)
    examples = (input_ids, puzzle_ids, z_H, z_H.clone())
    with translating(model), quiet():
        program = torch.onnx.export(
            export(Parts(model), examples),
            examples,
            input_names=["input_ids", "puzzle_ids", "h", "z_H"],
            output_names=["x", "stacked", "logits", "halt_logits"],
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # it is without a file to write to
    if program.model_proto.functions or any(
        a.g.node for node in program.model_proto.graph.node for a in node.attribute
    ):
        raise ValueError(
            "PyTorch's exporter left functions or branches in the graph of the operators; no loop takes these"
        )
    return program.model_proto


def save(model: ModelProto, path: Path) -> None:
    """Write the model; the weights into a second file beside it when both would be too large for one."""
    large = model.ByteSize() > LARGEST_FILE
    onnx.save_model(model, path, save_as_external_data=large, location=path.name + WEIGHTS_SUFFIX)


def _counts(config: TRMConfig) -> list[TensorProto]:
    """The constants of the loops: how often, and the condition that always holds."""
    values = {"H_cycles": config.H_cycles, "L_cycles": config.L_cycles}
    if config.num_latents == 1:
        values = {"cycles": config.H_cycles * config.L_cycles}
    counts = [helper.make_tensor(name, TensorProto.INT64, [], [value]) for name, value in values.items()]
    return [*counts, helper.make_tensor("go_on", TensorProto.BOOL, [], [True])]


def _two_latents(stack: Part, shape: list[int]) -> list[NodeProto]:
    scratch = [
        helper.make_node("Add", ["L/z_L", "H/z_H"], ["L/sum_z"]),
        helper.make_node("Add", ["L/sum_z", "x"], ["L/sum"]),
        *stack.placed("L/stack", ["L/sum"], ["L/next_z_L"]),
    ]
    cycle = [
        _loop("L_cycles", _body("L", scratch, ["z_L"], shape), ["H/z_L"], ["H/next_z_L"]),
        helper.make_node("Add", ["H/z_H", "H/next_z_L"], ["H/sum"]),
        *stack.placed("H/stack", ["H/sum"], ["H/next_z_H"]),
    ]
    return [_loop("H_cycles", _body("H", cycle, ["z_H", "z_L"], shape), ["z_H", "z_L"], ["next_z_H", "next_z_L"])]


def _one_latent(stack: Part, shape: list[int]) -> list[NodeProto]:
    update = [
        helper.make_node("Add", ["H/z_H", "x"], ["H/sum"]),
        *stack.placed("H/stack", ["H/sum"], ["H/next_z_H"]),
    ]
    return [_loop("cycles", _body("H", update, ["z_H"], shape), ["z_H"], ["next_z_H"])]


def _loop(count: str, body: GraphProto, inputs: list[str], outputs: list[str]) -> NodeProto:
    return helper.make_node("Loop", [count, "go_on", *inputs], outputs, name=f"{body.name}/loop", body=body)


def _body(name: str, nodes: list[NodeProto], latents: list[str], shape: list[int]) -> GraphProto:
    """A loop's body: (number, go_on, latents) -> (goes_on, next latents)."""
    number = helper.make_tensor_value_info(f"{name}/number", TensorProto.INT64, [])
    go_on, goes_on = (helper.make_tensor_value_info(f"{name}/{c}", TensorProto.BOOL, []) for c in ("go_on", "goes_on"))
    return helper.make_graph(
        [helper.make_node("Identity", [go_on.name], [goes_on.name]), *nodes],
        name,
        [number, go_on, *(_floats(f"{name}/{latent}", shape) for latent in latents)],
        [goes_on, *(_floats(f"{name}/next_{latent}", shape) for latent in latents)],
    )


def _floats(name: str, shape: list[int]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *shape])
