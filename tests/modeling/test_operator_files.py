"""Operators of a user's own: their file is trained with, travels with the checkpoint, and loads without the package."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from torch import nn

from modeling_trm import OPERATORS, GridProcessor, TRMForGridReasoning
from modeling_trm.benchmarking import peak
from modeling_trm.commands import benchmark, compare_recipes, doctor, evaluate, solve, sweep, train
from modeling_trm.engines_trm import choose_engine
from modeling_trm.layers_trm import rms_norm
from modeling_trm.operator_files_trm import import_operators, operator_files, write_operators
from modeling_trm.utils.files import write_json
from modeling_trm.utils.manifest import weights_sha256
from tests.conftest import PUZZLE
from tests.forked import run_forked

ROOT = Path(__file__).parents[2]
SMALL = (
    "--train_steps 3 --batch_size 4 --hidden_size 32 --H_cycles 1 --L_cycles 2 --halt_max_steps 2 --eval_every 3 "
    "--supervision_curriculum null --validation_puzzles 2 --test_puzzles 2 --compile no --mixed_precision no "
    "--report_to none --cpu"
)
PLAIN = """
from torch import nn
from modeling_trm.operators_trm import OPERATORS

class Plain(nn.Linear):
    def __init__(self, config):
        super().__init__(config.hidden_size, config.hidden_size)

OPERATORS["plain"] = Plain
"""
FRESH = """
import sys
sys.modules["modeling_trm"] = None
import torch
from safetensors.torch import save_file
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
ids = torch.arange(81)[None] % 11
with torch.no_grad():
    save_file({"logits": model(ids).logits, "answers": model.solve(ids).answers}, sys.argv[2])
model.save_pretrained(sys.argv[3])
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In a folder of one's own; what was registered is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before, modules = dict(OPERATORS), set(sys.modules)
    yield
    OPERATORS.clear()
    OPERATORS.update(before)
    for name in set(sys.modules) - modules:
        if name.rpartition(".")[2].startswith("my_ops"):
            del sys.modules[name]


def in_a_fresh_process(*arguments: str, program: str = FRESH) -> str:
    """What a program prints that has neither the package nor the current folder to import from."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(Path("modules").resolve())}
    done = run_forked("-I", "-c", program, *arguments, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_operator_of_the_guide_is_trained_saved_and_loaded_without_the_package() -> None:
    guide = (ROOT / "docs" / "guides" / "operator.md").read_text(encoding="utf-8")
    Path("my_ops.py").write_text(re.search(r"<!-- file: my_ops.py -->\n```python\n(.*?)```", guide, re.DOTALL)[1])
    command = f"quickstart --import my_ops.py --block_operators gated_conv symbols mlp --output_dir run {SMALL}"
    assert train.main(command.split()) == 0
    folder = Path("run/model")
    assert operator_files(folder) == ["my_ops_trm.py"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "my_ops_trm.py" in card and "--import run/model/my_ops_trm.py" in card

    in_a_fresh_process(str(folder.resolve()), "fresh.safetensors", "again")
    found, ids = load_file("fresh.safetensors"), torch.arange(81)[None] % 11
    model = TRMForGridReasoning.from_pretrained(folder).eval()
    with torch.no_grad():
        torch.testing.assert_close(found["logits"], model(ids).logits, rtol=0, atol=1e-5)
    assert found["answers"].shape == (1, 81)
    # What is saved over there carries the code on, and the package reads that copy once it is told to.
    del OPERATORS["gated_conv"]
    with pytest.raises(StrictDataclassError, match=r"'gated_conv' is not an operator; .*--import FILE"):
        TRMForGridReasoning.from_pretrained("again")
    own_file = ["--import", "again/my_ops_trm.py"]
    assert solve.main(["--model", "run/model", *own_file, PUZZLE, "--max-steps", "1"]) == 0
    words = ["--model", "run/model", *own_file, "--max-puzzles", "2", "--max-steps", "1", "--output", "figures"]
    assert evaluate.main(words) == 0
    # A copy that was read travels as any file does.
    TRMForGridReasoning.from_pretrained("again").save_pretrained("third")
    for name in ("my_ops_trm.py", "own_operators_trm.py"):
        assert Path("third", name).read_bytes() == Path("again", name).read_bytes() == (folder / name).read_bytes()


def test_sweep_benchmark_doctor_and_compare_recipes_read_them_too(tiny_model, monkeypatch, capsys, refused) -> None:
    """A checkpoint of another process: nothing is registered until --import is met."""
    monkeypatch.setitem(peak.SIZES, "cpu", 64)
    Path("my_ops.py").write_text(PLAIN)
    import_operators("my_ops.py")
    model = tiny_model("trm-attn", block_operators=["plain", "mlp"], vocab_size=11, seq_len=81, num_puzzles=1)
    model.save_pretrained("model")
    GridProcessor("sudoku").save_pretrained("model")
    write_json("model/metrics.json", {"evaluations": {}, "weights": weights_sha256(Path("model"))})
    stack = "--part supervision --presets plain+mlp --lengths 18 --batch-sizes 1 --dtype float32 --engines eager"
    puzzles = "--max-puzzles 2 --steps 1 --random-start --trajectories 2"
    for command, words in (
        (sweep, f"--model model --output swept {puzzles}"),
        (benchmark, f"{stack} --rounds 1 --output timed --device cpu"),
        (doctor, "model"),
    ):
        del OPERATORS["plain"]
        assert command.main([*words.split(), "--import", "my_ops.py"]) == 0
    assert "loads; its weights are those that metrics.json names" in capsys.readouterr().out

    commands: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda words, check: commands.append(words) or SimpleNamespace(returncode=3))
    Path("mine.yaml").write_text("base: sudoku-cpu-act\npreset: null\nblock_operators: [plain, mlp]\n")
    del OPERATORS["plain"]
    assert "exit code 3" in refused(
        compare_recipes.main, "mine.yaml sudoku-cpu-act --import my_ops.py --flops 1e9 --output compared".split()
    )  # the run of the first recipe ends with code 3
    (train_words,) = commands
    assert train_words[-2:] == ["--import", "my_ops.py"] and train.parse_arguments(train_words[4:])[1][0] == "mine.yaml"


def test_any_module_will_do(tiny_config) -> None:
    Path("my_ops.py").write_text(PLAIN)
    import_operators("my_ops.py")
    config = tiny_config("trm-attn", block_operators=["plain", "mlp"])
    model = TRMForGridReasoning(config)
    ids = torch.randint(config.vocab_size, (2, config.seq_len))
    model(input_ids=ids, labels=ids).loss.backward()
    assert model.model.stack[0].weight.grad is not None
    # The post-norm runs over the channels, and the packed engine computes the same.
    stack, x = model.model.stack, torch.randn(2, config.num_positions, config.hidden_size)
    h = rms_norm(x + stack[0](x), config.rms_norm_eps)
    torch.testing.assert_close(stack(x), rms_norm(h + stack[1](h), config.rms_norm_eps))
    with torch.no_grad():
        eager, packed = (
            choose_engine(model.eval(), name)(ids, state=model.initial_state(2)).halt_logits
            for name in ("eager", "auto")
        )
    torch.testing.assert_close(eager, packed, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("my_ops.py", "import torch\nfrom modeling_trm import OPERATORS\n", "line 2: 'from modeling_trm import OPERAT"),
        ("my_ops.py", "import modeling_trm\n", "line 1: 'import modeling_trm' would not load from a checkpoint"),
        ("my_ops.py", "from .mine import x\n", "line 1: 'from .mine import x' would not load"),
        ("my_ops.py", "1 / 0\n", "my_ops.py cannot be imported: ZeroDivisionError: division by zero"),
        ("my_ops.py", "def\n", "my_ops.py, line 1: invalid syntax"),
        ("layers.py", PLAIN, "would take the place of the package's layers_trm.py"),
        ("my-ops.py", PLAIN, "my-ops.py cannot be imported: name it NAME.py"),
        ("absent.py", None, "No such file or directory: 'absent.py'"),
    ],
)
def test_a_file_that_could_not_travel_is_refused_before_work_begins(name, code, message, refused) -> None:
    if code is not None:
        Path(name).write_text(code)
    for command in (["quickstart", "--import", name], [f"--import={name}"]):
        assert message in refused(train.main, command)
    assert not Path("runs").exists()


def test_code_that_stays_behind_is_told(tmp_path: Path, monkeypatch) -> None:
    class Inner(nn.Module):
        pass

    warned = []
    monkeypatch.setattr("modeling_trm.operator_files_trm.logger.warning", warned.append)
    write_operators({"inner": Inner, "attention": OPERATORS["attention"]}, tmp_path)
    (text,) = warned
    assert "the code of operator 'inner' does not go along" in text and "top level of a file" in text
    assert not list(tmp_path.glob("*_trm.py"))
