"""A checkpoint runs with the code of its own operators or not at all, and an operator is one that it can bring back."""

import importlib
import re
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import initialization as init

from modeling_trm import OPERATORS, GridProcessor, TRMConfig, TRMForGridReasoning
from modeling_trm.layers_trm import Operator
from modeling_trm.operator_files_trm import import_operators, own_code, write_operators
from modeling_trm.operators_trm import BUILT_IN
from modeling_trm.training.arguments import parse_recipe
from modeling_trm.utils.flops import flops
from tests.modeling.test_operator_files import in_a_fresh_process

CODE = """
from torch import nn
from modeling_trm.operators_trm import OPERATORS

class Plain(nn.Linear):
    def __init__(self, config):
        super().__init__(config.hidden_size, config.hidden_size)

    def forward(self, x):
        return {factor} * super().forward(x)

OPERATORS["{name}"] = Plain
"""
TWO_IN_ONE_PROCESS = """
import importlib
import re
import sys
sys.modules["modeling_trm"] = None
from transformers import AutoModel
AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
try:
    AutoModel.from_pretrained(sys.argv[2], trust_remote_code=True)
except ValueError as error:
    print(error)
"""


class Plain(nn.Module):
    """A linear layer, which the kinds below are made of."""

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Sized(nn.Sequential):
    """With options of its own, one of them without a default; its cost is its own to say."""

    def __init__(self, config: TRMConfig, widths: list[int], bias: bool = True) -> None:
        ends = [config.hidden_size, *widths, config.hidden_size]
        super().__init__(*(nn.Linear(*pair, bias=bias) for pair in pairwise(ends)))

    @staticmethod
    def flops(config: TRMConfig, widths: list[int], bias: bool = True) -> int:
        return 1000 * len(widths) + bias


class Mixed(Plain):
    """With tensors of every kind; BatchNorm counts its batches in whole numbers."""

    def __init__(self, config: TRMConfig) -> None:
        super().__init__(config)
        self.norm = nn.BatchNorm1d(config.hidden_size)
        self.register_buffer("mask", torch.ones(config.hidden_size).bool())
        self.filter = nn.Parameter(torch.randn(config.hidden_size, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        filtered = torch.fft.ifft(torch.fft.fft(super().forward(x)) * self.filter).real
        return self.norm(filtered.mT).mT.masked_fill(~self.mask, 0)


class Unsaved(Plain):
    def __init__(self, config: TRMConfig) -> None:
        super().__init__(config)
        self.linear.register_buffer("mask", torch.ones(1), persistent=False)


class Attribute(Plain):
    def __init__(self, config: TRMConfig) -> None:
        super().__init__(config)
        self.table = torch.ones(1)


class Lazy(Plain):
    """A place for what forward computes, which is empty when the model is built."""

    def __init__(self, config: TRMConfig) -> None:
        super().__init__(config)
        self.register_buffer("cached", None, persistent=False)


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In a folder of one's own; what was registered is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before = dict(OPERATORS)
    yield
    OPERATORS.clear()
    OPERATORS.update(before)
    forget_files()


def forget_files() -> None:
    for name in [name for name in sys.modules if name.startswith("modeling_trm.mine")]:
        del sys.modules[name]


def written(path: str, factor: int = 1, name: str = "mine") -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(CODE.format(factor=factor, name=name))
    return path


def save(tiny_model: Callable[..., TRMForGridReasoning], folder: str, *operators: str) -> None:
    tiny_model("trm-attn", block_operators=[*operators, "mlp"]).save_pretrained(folder)


# --- whose code runs ------------------------------------------------------------------------------------------------


def test_a_checkpoint_does_not_run_with_another_file_of_its_operators_name(tiny_model) -> None:
    import_operators(written("a/mine.py"))
    save(tiny_model, "saved", "mine")
    forget_files()
    del OPERATORS["mine"]
    import_operators(written("b/mine.py", factor=2))
    with pytest.raises(
        ValueError, match=r"^operator 'mine' is Plain of saved/mine_trm\.py, .*/b/mine\.py, other code: "
    ):
        TRMForGridReasoning.from_pretrained("saved")
    Path("b/mine.py").write_text("# Only a remark is new.\n" + CODE.format(factor=1, name="mine"))
    import_operators("b/mine.py")
    assert type(TRMForGridReasoning.from_pretrained("saved").model.stack[0]) is OPERATORS["mine"]
    # A class that says nowhere what it does is not taken for it either.
    OPERATORS["mine"] = type("Plain", (Plain,), {"__module__": "__main__"})
    with pytest.raises(ValueError, match="what is registered here is Plain of __main__, other code"):
        TRMForGridReasoning.from_pretrained("saved")


def test_two_checkpoints_in_a_process_without_the_package_keep_their_code_apart(tiny_model) -> None:
    """Of folders of one name transformers takes the classes of the first for both."""
    for run, factor in (("first", 1), ("second", 2)):
        import_operators(written(f"{run}/mine.py", factor))
        save(tiny_model, f"{run}/model", "mine")
        forget_files()
        del OPERATORS["mine"]
    said = in_a_fresh_process("first/model", "second/model", program=TWO_IN_ONE_PROCESS)
    assert said.startswith("operator 'mine' is Plain of second/model/mine_trm.py, but what is registered here is Plain")


def test_what_a_checkpoint_calls_like_ours_is_not_loaded_as_ours(tiny_model) -> None:
    OPERATORS["mlp"] = Plain
    with pytest.raises(ValueError, match=r"'mlp'\] is Plain of .*, but 'mlp' is an operator of the package, .* own$"):
        tiny_model("trm-attn")
    OPERATORS["mlp"] = BUILT_IN["mlp"]
    # A checkpoint of an earlier version, which allowed it.
    save(tiny_model, "saved", "attention")
    import_operators(written("mine.py"))
    write_operators({"mlp": OPERATORS["mine"]}, "saved")
    with pytest.raises(ValueError, match=r"^operator 'mlp' is Plain of saved/mine_trm\.py, .* is Mlp of .*mlp_trm\.py"):
        TRMForGridReasoning.from_pretrained("saved")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"path": "a/mine.py"}, {"path": "b/mine.py", "factor": 2}, "the module modeling_trm.mine_trm is, and"),
        ({"path": "a/mine.py"}, {"path": "b/mine.py", "name": "other"}, "the module modeling_trm.mine_trm is, and"),
        ({"path": "a/mine.py"}, {"path": "mine_too.py", "factor": 2}, "what operator 'mine' is, and their code"),
        ({"path": "a/mine.py"}, {"path": "mine_too.py", "name": "mlp"}, "'mlp' is an operator of the package"),
    ],
)
def test_a_name_has_one_file(first: dict, second: dict, message: str) -> None:
    import_operators(written(**first))
    before, module = dict(OPERATORS), sys.modules["modeling_trm.mine_trm"]
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        import_operators(written(**second))
    assert second["path"] in str(refused.value) or "mine_too_trm" in str(refused.value)
    assert before == OPERATORS and sys.modules["modeling_trm.mine_trm"] is module
    assert "modeling_trm.mine_too_trm" not in sys.modules
    # The same file again, edited or not, and a copy of it: what a checkpoint brings along.
    for path in ("a/mine.py", "copy/mine_trm.py", "copy/mine_copy.py"):
        import_operators(written(path))
    import_operators(written("copy/mine_copy.py", factor=3))


def test_what_goes_along_is_what_was_imported(tiny_model) -> None:
    """A long run ends with the code that it began with, whatever was edited meanwhile."""
    import_operators(written("mine.py"))
    written("mine.py", factor=2)
    begun = own_code(["mine", "mlp"])
    save(tiny_model, "saved", "mine")
    assert "return 1 * super" in Path("saved/mine_trm.py").read_text()
    import_operators("mine.py")
    assert own_code(["mine"])["mine"]["file"] == begun["mine"]["file"] and own_code(["mine"]) != begun


def test_two_files_of_one_name_do_not_go_along_as_one(tmp_path, monkeypatch) -> None:
    """Of packages of a user's own, which Python tells apart."""
    warned: list[str] = []
    monkeypatch.setattr("modeling_trm.operator_files_trm.logger.warning", warned.append)
    monkeypatch.syspath_prepend(tmp_path)
    for package, factor in (("mine_a", 1), ("mine_b", 2)):
        written(f"{package}/mine.py", factor, package)
        importlib.import_module(f"{package}.mine")
    write_operators({name: OPERATORS[name] for name in ("mine_a", "mine_b")}, tmp_path)
    (text,) = warned
    assert "operator 'mine_b' does not go along" in text and "has the name of another file" in text
    assert "return 1 *" in (tmp_path / "mine_trm.py").read_text()


@pytest.mark.parametrize("line", ["import mine_beside", "from mine_beside import x", "import mine_folder.x as x"])
def test_a_module_that_lies_beside_is_refused_with_its_line(line: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    Path("mine_beside.py").write_text("x = 1\n")
    Path("mine_folder").mkdir()
    Path("mine_folder/x.py").touch()
    Path("mine.py").write_text(f"import math\nimport numpy.linalg\n{line}\n")
    with pytest.raises(ValueError, match=rf"^mine\.py, line 3: '{line}' would not load from a checkpoint; .*installed"):
        import_operators("mine.py")
    Path("mine.py").write_text(
        "import math\nimport numpy.linalg\ntry:\n    import mine_absent\nexcept ImportError:\n    x = 2\n"
    )
    assert import_operators("mine.py").x == 2


# --- what can be an operator ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [partial(Plain), lambda config: Plain(config), type("my-op", (Plain,), {}), Path],
    ids=["partial", "lambda", "no identifier", "no module"],
)
def test_an_operator_is_a_class_that_a_checkpoint_can_name(entry: Any, tiny_model) -> None:
    OPERATORS["mine"] = entry
    with pytest.raises(ValueError, match=r"^OPERATORS\['mine'\] is .*; allowed: a class derived from nn\.Module, .*"):
        save(tiny_model, "saved", "mine")


@pytest.mark.parametrize(("kind", "name"), [(Unsaved, "linear.mask"), (Attribute, "table")])
def test_a_tensor_that_no_checkpoint_has_is_refused(kind: type, name: str, tiny_model) -> None:
    OPERATORS["mine"] = kind
    with pytest.raises(ValueError, match=rf"^operator 'mine' holds {name}, which no checkpoint has, .*persistent=True"):
        save(tiny_model, "saved", "mine")
    OPERATORS["mine"] = Lazy
    save(tiny_model, "saved", "mine")


def test_init_parameters_has_the_last_word_and_init_only_where_the_model_says_nothing(tiny_model) -> None:
    class Quiet(Plain, Operator):
        def __init__(self, config: TRMConfig) -> None:
            super().__init__(config)
            self.own = nn.Parameter(torch.full((2,), 3.0))
            nn.init.zeros_(self.linear.weight)

    OPERATORS["mine"] = Quiet
    (quiet, _) = tiny_model("trm-attn", block_operators=["mine", "mlp"]).model.stack
    assert quiet.linear.weight.count_nonzero() and torch.equal(quiet.own, torch.full((2,), 3.0))
    Quiet.init_parameters = lambda self: init.zeros_(self.linear.weight)
    assert not tiny_model("trm-attn", block_operators=["mine", "mlp"]).model.stack[0].linear.weight.count_nonzero()


@pytest.mark.parametrize("dtype", [None, torch.float64, torch.bfloat16])
def test_tensors_of_every_kind_come_back(dtype: torch.dtype | None, tiny_model) -> None:
    OPERATORS["mine"] = Mixed
    save(tiny_model, "saved", "mine")
    saved = load_file("saved/model.safetensors")
    options = {} if dtype is None else {"dtype": dtype}
    loaded = TRMForGridReasoning.from_pretrained("saved", **options).state_dict()
    for name in ("mask", "filter", "norm.num_batches_tracked"):
        assert torch.equal(loaded[f"model.stack.0.{name}"], saved[f"model.stack.0.{name}"])


@pytest.mark.parametrize("name", ["mask", "filter", "norm.num_batches_tracked"])
def test_a_tensor_of_another_kind_than_the_models_is_refused(name: str, tiny_model) -> None:
    OPERATORS["mine"] = Mixed
    save(tiny_model, "saved", "mine")
    saved, key = load_file("saved/model.safetensors"), f"model.stack.0.{name}"
    save_file(saved | {key: saved[key].real.float().contiguous()}, "saved/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"another kind than the model's \({key}: floating-point numbers for \w+"):
        TRMForGridReasoning.from_pretrained("saved")


@pytest.mark.parametrize("order", ["raster", "transposed-reversed"])
@pytest.mark.parametrize("fields", [False, True])
def test_an_operator_that_gives_back_something_else_is_named(fields: bool, order: str, tiny_model, tiny_batch) -> None:
    given = {"shape": lambda x: x[:, :-1], "tuple": lambda x: (x, None), "wide": lambda x: x[..., :1]}
    for name, wrong in given.items():
        kind = type("Mine", (Plain,), {"forward": lambda self, x, wrong=wrong: wrong(x), "reads_in_order": True})
        OPERATORS["mine"] = kind
        model = tiny_model("trm-attn", block_operators=["mlp", "mine"], symbol_fields=fields, scan_orders=[order])
        told = "a tuple" if name == "tuple" else r"shape \[.*\]"
        with pytest.raises(
            ValueError, match=rf"^operator 'mine' returned {told}; allowed: a tensor of the shape that "
        ):
            model(**tiny_batch(model.config))


def test_options_of_an_operator_stand_in_the_config_and_come_back(tiny_model) -> None:
    OPERATORS["sized"] = Sized
    options = {"sized": {"widths": [24, 8], "bias": False}}
    model = tiny_model("trm-attn", block_operators=["sized", "mlp"], operator_options=options)
    shapes = [tuple(weight.shape) for weight in model.model.stack[0].parameters()]
    assert shapes == [(24, 32), (8, 24), (32, 8)]
    model.save_pretrained("saved")
    again = TRMForGridReasoning.from_pretrained("saved")
    assert again.config.operator_options == options
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight)
    without = {**model.config.to_dict(), "operator_options": {"sized": {"widths": [], "bias": True}}}
    assert flops(model.config) - flops(TRMConfig(**without)) == (2000 - 1) * 2 * (2 + 1)  # two cycles of three stacks


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, r"'sized' are \{\}: missing a required argument: 'widths'; allowed: widths"),
        ({"sized": {"widths": [], "bies": 1}}, r"'bies'; allowed: widths: list\[int\], bias: bool = True"),
        ({"seized": {}}, "names 'seized', which the stack has not; did you mean 'sized'"),
    ],
)
def test_options_that_the_class_does_not_take_are_refused_with_the_config(given, named) -> None:
    OPERATORS["sized"] = Sized
    with pytest.raises(StrictDataclassError, match=named):
        TRMConfig(block_operators=["sized", "mlp"], operator_options=given)


def test_a_recipe_says_options_of_an_operator() -> None:
    OPERATORS["sized"] = Sized
    words = ["quickstart", "--block_operators", "sized", "--operator_options", "{sized: {widths: [4]}}"]
    config = parse_recipe(words).model_config(GridProcessor("sudoku"), 1)
    assert config.operator_options == {"sized": {"widths": [4]}}
