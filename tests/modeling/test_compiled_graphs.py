"""What torch.compile makes of the stack: the kernels that were asked for, in one graph, and nothing of positions alone.

No GPU is needed: the graphs are recorded and not run, of fake CUDA tensors where only these take a path.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from packaging.version import Version
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule

from modeling_trm import OPERATORS, mamba2_trm
from modeling_trm.configuration_trm import KERNELS
from modeling_trm.operators_trm import Stack

CUDA_KERNELS = {"conv_silu", "ssd_scan"}
TRITON_KERNELS = {"conv_silu", "ssd_product"}
LEFT, TRANSPOSED = {"bmm"}, {"linear"}
# Field and value, device, what the graph has, what it has not.
CASES = [
    ("mamba2", "ssd_backend", "auto", "cuda", CUDA_KERNELS, {"ssd_product", "tril"}),
    ("mamba2", "ssd_backend", "cuda", "cuda", CUDA_KERNELS, {"ssd_product", "tril"}),
    ("mamba2", "ssd_backend", "auto", "cpu", {"tril"}, TRITON_KERNELS | CUDA_KERNELS),
    ("mamba2", "ssd_backend", "torch", "cpu", {"tril"}, TRITON_KERNELS | CUDA_KERNELS),
    ("mamba2", "ssd_backend", "triton", "cpu", TRITON_KERNELS, {"ssd_scan", "tril"}),
    ("mlp_t", "mlp_t_backend", "auto", "cuda", LEFT, TRANSPOSED),
    ("mlp_t", "mlp_t_backend", "torch", "cuda", TRANSPOSED, LEFT),
    ("mlp_t", "mlp_t_backend", "auto", "cpu", TRANSPOSED, LEFT),
    ("attention", "attention_backend", "auto", "cuda", set(), {"_sdpa_kernel"}),
    ("attention", "attention_backend", "cudnn", "cuda", {"_sdpa_kernel", "CUDNN_ATTENTION"}, set()),
    ("attention", "attention_backend", "flash", "cuda", {"_sdpa_kernel", "FLASH_ATTENTION"}, set()),
    ("attention", "attention_backend", "efficient", "cuda", {"_sdpa_kernel", "EFFICIENT_ATTENTION"}, set()),
    ("attention", "attention_backend", "math", "cuda", {"_sdpa_kernel", "MATH"}, set()),
    ("mlp", None, None, "cuda", TRANSPOSED, LEFT),
    ("symbols", None, None, "cuda", {"softmax"}, set()),
    ("mamba3", None, None, "cpu", {"tril"}, CUDA_KERNELS),
    ("delta", None, None, "cpu", {"tril"}, CUDA_KERNELS),
    ("conv_mlp", None, None, "cpu", {"addcmul"}, LEFT),
    ("conv2d", None, None, "cpu", {"conv2d"}, LEFT),
    ("axial", None, None, "cpu", {"softmax"}, LEFT),
]
FOR_CUDA_KERNELS = {"hidden_size": 64, "mamba_d_state": 16, "mamba_head_dim": 16}
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch._dynamo.reset()
    torch.use_deterministic_algorithms(False)  # with them cuDNN's attention is refused


class Recorder:
    """A backend of torch.compile that keeps the graphs and runs them uncompiled."""

    def __init__(self) -> None:
        self.graphs: list[GraphModule] = []

    def __call__(self, graph: GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
        self.graphs.append(graph)
        return graph.forward

    def names(self) -> set[str]:
        """The functions and methods that the one graph calls, and the strings it hands to them."""
        (graph,) = self.graphs
        return names(graph)


def names(graph: GraphModule) -> set[str]:
    found: set[str] = set()
    for node in graph.graph.nodes:
        if node.op == "call_module":
            found.add(type(graph.get_submodule(node.target)).__name__)
        elif node.op.startswith("call"):
            target = getattr(node.target, "_opname", None) or getattr(node.target, "__name__", str(node.target))
            found |= {target, *(value for value in node.args if isinstance(value, str))}
    return found


def place(module: nn.Module, device: str, dtype: torch.dtype) -> None:
    """Its weights as tensors of the fake mode under way."""
    for part in module.modules():
        for name, weight in part.named_parameters(recurse=False):
            empty = torch.empty(weight.shape, device=device, dtype=dtype)
            setattr(part, name, nn.Parameter(empty, requires_grad=False))


def test_every_operator_and_every_choice_of_kernels_is_among_the_cases() -> None:
    assert {case[0] for case in CASES} == set(OPERATORS)
    assert {case[1] for case in CASES} - {None} == set(KERNELS)


@pytest.mark.parametrize(
    ("operator", "field", "value", "device", "there", "absent"),
    [pytest.param(*case, id="-".join(map(str, case[:4])), marks=[needs_triton] * ("triton" in case)) for case in CASES],
)
def test_a_compiled_stack_runs_the_kernels_that_were_asked_for(
    operator: str,
    field: str | None,
    value: str,
    device: str,
    there: set[str],
    absent: set[str],
    tiny_config,
    monkeypatch,
) -> None:
    monkeypatch.setattr(mamba2_trm, "CUDA_KERNELS_MISSING", None)  # fake tensors do not ask for the kernels themselves
    if value == "triton":
        monkeypatch.setattr("modeling_trm.ssd_triton_trm.NEEDS_CUDA", False)
        # As on a GPU, where the compiler of torch 2.11 broke every graph at the question what a kernel is.
        monkeypatch.setattr("torch.utils._triton.has_triton", lambda: True)
    if device == "cuda":  # a choice among kernels for a device that is not here fails in PyTorch itself
        monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda q, k, v: v)
    chosen = {field: value} if field else {"symbol_fields": operator == "symbols"}
    config = tiny_config("trm-attn", block_operators=[operator], **FOR_CUDA_KERNELS, **chosen)
    stack = Stack(config)
    recorder = Recorder()
    stack.compile(backend=recorder, fullgraph=True)
    with FakeTensorMode(), torch.no_grad():
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        place(stack, device, dtype)
        h = torch.empty(2, *config.latent_shape, device=device, dtype=dtype)
        assert stack(h, stack.prepare(h)).shape == h.shape
    assert there <= recorder.names()
    assert not absent & recorder.names()


@pytest.mark.skipif(torch.version.cuda is None, reason="a CPU build of PyTorch cannot index fake CUDA tensors")
@pytest.mark.skipif(
    Version(torch.__version__) < Version("2.10") and not torch.cuda.is_available(),
    reason="of PyTorch 2.9 fake CUDA tensors too ask for a driver",
)
def test_a_gpu_without_the_kernels_takes_the_pytorch_path_in_one_graph(tiny_config, monkeypatch) -> None:
    """The warning must not break the graph."""
    monkeypatch.setattr(mamba2_trm, "CUDA_KERNELS_MISSING", "No module named 'causal_conv1d'")
    seen: list[str] = []
    monkeypatch.setattr(mamba2_trm.logger, "warning_once", seen.append)
    stack, recorder = Stack(tiny_config("mamba2", **FOR_CUDA_KERNELS)), Recorder()
    stack.compile(backend=recorder, fullgraph=True)
    with FakeTensorMode(), torch.no_grad():
        place(stack, "cuda", torch.float32)
        h_BLD = torch.empty(2, 18, 64, device="cuda")
        stack(h_BLD, stack.prepare(h_BLD))
    assert "tril" in recorder.names() and not CUDA_KERNELS & recorder.names()
    assert len(seen) == 2 and "causal_conv1d" in seen[0]  # one for each operator, which warning_once makes one


@pytest.mark.parametrize(("backend", "fused"), [("flash", True), ("math", False)])
def test_the_choice_of_attention_holds_in_the_compiled_kernels(backend: str, fused: bool, tiny_config) -> None:
    """After PyTorch has taken its functions apart, forward and backward."""
    stack = Stack(tiny_config("trm-attn", block_operators=["attention"], attention_backend=backend))
    forward, backward = Recorder(), Recorder()
    boxed = [lambda graph, inputs, keep=keep: make_boxed_func(keep(graph, inputs)) for keep in (forward, backward)]
    stack.compile(backend=aot_autograd(fw_compiler=boxed[0], bw_compiler=boxed[1]), fullgraph=True)
    h_BLD = torch.randn(2, 18, 32, requires_grad=True)
    stack(h_BLD, stack.prepare(h_BLD)).sum().backward()
    for recorder in (forward, backward):
        assert any("flash_attention" in name for name in recorder.names()) == fused


def test_kernels_may_change_under_a_compiled_stack(tiny_model, tiny_batch) -> None:
    model = tiny_model("trm-attn", block_operators=["attention", "mlp"])
    batch, recorder = tiny_batch(model.config), Recorder()
    model.model.stack.compile(backend=recorder, fullgraph=True)
    with torch.no_grad():
        model(**batch)
        model.set_kernels(attention_backend="math")
        model(**batch)
        with model.portable_kernels():
            model(**batch)
    auto, math = map(names, recorder.graphs)
    assert "_sdpa_kernel" not in auto and {"_sdpa_kernel", "MATH"} <= math


@pytest.mark.parametrize("preset", ["trm-attn", "tr-mamba2attn", "symbols-attn", "symbols-mamba2"])
def test_nothing_of_positions_alone_is_computed_in_the_compiled_stack(preset: str, tiny_model, tiny_batch) -> None:
    """Rotary tables are made once a supervision step, not in each of its calls of the stack."""
    model = tiny_model(preset)
    batch, recorder = tiny_batch(model.config), Recorder()
    expected = model(**batch).logits
    model.model.stack.compile(backend=recorder, fullgraph=True)
    with torch.no_grad():
        actual = model(**batch).logits
    assert not {"cos", "sin", "pow", "__pow__", "__rpow__", "arange", "outer"} & recorder.names()
    assert torch.equal(actual, expected)


def test_tables_are_made_once_a_supervision_step_and_kept_in_float32(tiny_model, tiny_batch, monkeypatch) -> None:
    model, made = tiny_model("trm-attn", H_cycles=3, L_cycles=4), []
    operator = model.model.stack[0]
    prepare = operator.prepare
    monkeypatch.setattr(operator, "prepare", lambda x: made.append(prepare(x)) or made[-1])
    batch = tiny_batch(model.config)
    model(**batch)
    with torch.autocast("cpu", torch.bfloat16):
        model(**batch)
    model.bfloat16()(**batch)
    model.double()(**batch)
    assert [cos.dtype for cos, _ in made] == [torch.float32, torch.float32, torch.float32, torch.float64]


def test_a_compiled_model_skips_the_check_of_ids_that_a_graph_cannot_ask(tiny_model, tiny_batch) -> None:
    model = tiny_model("trm-mlp-t")
    batch, recorder = tiny_batch(model.config), Recorder()

    @torch.compile(backend=recorder, fullgraph=True)
    def embed(input_ids: Tensor, puzzle_ids: Tensor) -> Tensor:
        state = model.initial_state(len(input_ids))
        model.model.checked(input_ids, puzzle_ids, state)
        return model.model.embed(input_ids, puzzle_ids, state)

    embed(batch["input_ids"], batch["puzzle_ids"])
    assert not {"min", "max", "item"} & recorder.names()
    with pytest.raises(ValueError, match="input_ids holds"):
        model.model(batch["input_ids"] + model.config.vocab_size)
