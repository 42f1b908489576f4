"""scripts/convert_reference.py: exit codes, one line for what is refused, and a checkpoint that every script takes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from scripts import convert_reference, solve
from tests.conftest import PUZZLE
from tests.oracles import reference

SCRIPT = Path(convert_reference.__file__)
ARCH = {
    "H_cycles": 2, "L_cycles": 2, "L_layers": 1, "hidden_size": 32, "num_heads": 4, "expansion": 4,
    "puzzle_emb_ndim": 32, "puzzle_emb_len": 16, "pos_encodings": "rope", "mlp_t": False,
}  # fmt: skip
GIVEN = ["--H-cycles", "2", "--L-cycles", "2", "--num-heads", "4"]


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    def make(with_yaml: bool = True) -> str:
        path = tmp_path / "run" / "step_1"
        path.parent.mkdir()
        state = reference.random_state_dict({**ARCH, "vocab_size": 11, "seq_len": 81})
        torch.save({f"_orig_mod.model.inner.{name}": tensor for name, tensor in state.items()}, path)
        if with_yaml:
            path.with_name("all_config.yaml").write_text(yaml.safe_dump({"arch": ARCH}), encoding="utf-8")
        return str(path)

    return make


def test_there_and_back(save: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, ours, back = save(), str(tmp_path / "ours"), tmp_path / "back" / "step_1"
    assert convert_reference.main([source, "--output", ours]) == 0
    printed = capsys.readouterr().out
    assert "H_cycles: 2 (all_config.yaml)" in printed
    assert "rms_norm_eps: 1e-05 (assumed: the reference's own default)" in printed
    assert printed.endswith(f"written: {ours}\n")
    record = json.loads(Path(ours, "metrics.json").read_text(encoding="utf-8"))["conversion"]
    assert record["facts"]["command"] == f"trm convert {source} --output {ours}"
    assert solve.main(["--model", ours, "--max-steps", "2", PUZZLE]) == 0
    assert convert_reference.main([ours, "--to-reference", "--output", str(back)]) == 0
    assert str(back) in capsys.readouterr().out
    before, after = torch.load(source), torch.load(back)
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_options_take_the_place_of_the_yaml(save: Callable[..., str], tmp_path: Path) -> None:
    arguments = [save(with_yaml=False), *GIVEN, "--task", "sudoku", "--grid-shape", "9", "9"]
    assert (
        convert_reference.main(
            [*arguments, "--rope-theta", "500", "--license", "mit", "--output", str(tmp_path / "ours")]
        )
        == 0
    )
    config = json.loads((tmp_path / "ours" / "config.json").read_text(encoding="utf-8"))
    assert (config["rope_theta"], config["H_cycles"], config["num_attention_heads"]) == (500.0, 2, 4)
    assert json.loads((tmp_path / "ours" / "metrics.json").read_text(encoding="utf-8"))["license"] == "mit"


REFUSED = {
    "nothing given": ([], "error: {source}: its tensors do not tell H_cycles, L_cycles, num_heads; add --H-cycles N"),
    "another task": ([*GIVEN, "--task", "maze"], "error: {source}: has 11 token ids (tensors), --task maze needs 6"),
    "no such entry": ([*GIVEN, "--entry", "ema"], "error: {source}: has no entry 'ema'; allowed: the file itself"),
    "a licence in words": ([*GIVEN, "--license", "MIT licence"], "error: --license 'MIT licence': is no licence id"),
    "no such file": ([*GIVEN, "--identifiers", "no.json"], "error: no.json: cannot be read as JSON"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_one_line_and_exit_code_2(case: str, save: Callable[..., str], tmp_path: Path, refused) -> None:
    source, (more, message) = save(with_yaml=False), REFUSED[case]
    error = refused(convert_reference.main, [source, *more, "--output", str(tmp_path / "ours")])
    assert error.startswith(message.format(source=source))
    assert error.count("\n") == 1
    assert not (tmp_path / "ours").exists()


def test_a_folder_that_is_no_checkpoint_does_not_go_back(tmp_path: Path, refused) -> None:
    assert "holds no config.json" in refused(
        convert_reference.main, [str(tmp_path), "--to-reference", "--output", str(tmp_path / "out" / "step")]
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x", "--output", "y", "--to-reference", "--num-heads", "4"], "--to-reference takes --output alone"),
        (["x", "--output", "y", "--subset", "evaluation"], "--subset needs --identifiers"),
        (["x"], "--output"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, refused) -> None:
    assert message in refused(convert_reference.main, arguments)


def test_help_as_a_program_imports_no_torch() -> None:
    run = f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\nfinally: assert 'torch' not in sys.modules"
    code = f"import runpy, sys; sys.argv = ['x', '--help']\n{run}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout
