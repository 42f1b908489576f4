"""What a command refuses before it works, and how it ends when it is stopped."""

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open

from modeling_trm import GridProcessor, TRMConfig
from modeling_trm.commands import benchmark, demo, evaluate, loop_experiment, solve, trm
from modeling_trm.metrics.pass_at_k.ranking import pass_at_k
from modeling_trm.operator_files_trm import import_operators
from modeling_trm.publishing.contents import ContentsError, select
from modeling_trm.text_file_trm import parse_json
from modeling_trm.training.arguments import parse_recipe
from modeling_trm.training.fields import parse_files
from modeling_trm.utils.cli import user_errors
from modeling_trm.utils.loading import CheckpointError, choose_device, load_model


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def interrupted(argv: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(trm, "command_module", lambda name: SimpleNamespace(main=interrupted))
    assert trm.main(["train", "quickstart"]) == 130
    assert capsys.readouterr().err == "\nstopped: what trm train has written is whole, and the same command goes on\n"


@pytest.mark.parametrize(
    ("command", "output", "told"),
    [
        (evaluate, "file", "is a file, not a folder"),
        (evaluate, "/dev/null/x", "/dev/null is a file, not a folder"),
        (solve, "/dev/null", "is a device or a pipe"),
        (solve, "checkpoint/config.json", "lies in a checkpoint's folder"),
        (evaluate, "run", "is the folder of a training"),
        (evaluate, "theirs", "metrics.json: is of another program"),
        (evaluate, "page", "index.html: is of another program"),
        (evaluate, "home", "is your home, or around it"),
    ],
)
def test_an_output_is_refused_before_anything_is_read(
    command, output: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))
    for name in (
        "file", "checkpoint/config.json", "run/log.jsonl", "theirs/metrics.json", "page/index.html", "home/me/x",
    ):  # fmt: skip
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("{}")
    puzzle = ["." * 81] if command is solve else []
    assert told in refused(command.main, ["--model", "no-such-model", "--output", output, *puzzle])


def test_figures_with_other_settings_are_not_replaced_without_a_word(tmp_path: Path, refused) -> None:
    output, command = str(tmp_path), ["--model", "no-such-model", "--output", str(tmp_path)]

    def told(*more: str) -> str:
        return refused(evaluate.main, [*command, *more])

    assert "note:" not in told()
    earlier = {"command": f"trm evaluate --model no-such-model --output {output}"}
    (tmp_path / "metrics.json").write_text(json.dumps({"evaluations": {"test": earlier}}))
    (tmp_path / "sweep.json").write_text(json.dumps({"rows": [], "command": "trm sweep"}))  # stays
    assert "note:" not in told()
    note = f"note: {output}: metrics.json is there and will be replaced; it is of: {earlier['command']}\n"
    assert told("--halt", "0.9").count("note:") == 1 and note in told("--halt", "0.9")
    (tmp_path / "metrics.json").write_text('{"evaluations": [1]}')
    assert "note:" not in told("--halt", "0.9")


def test_puzzles_are_not_replaced_by_their_answers(tmp_path: Path, refused) -> None:
    file = tmp_path / "puzzles.txt"
    file.write_text("." * 81)
    assert "which is read; give another output" in refused(
        solve.main, ["--model", "no-such-model", str(file), "--output", str(file)]
    )
    assert file.read_text() == "." * 81


@pytest.mark.parametrize("seed", ["-1", str(2**32), "1.5", "x", "²"])
def test_a_seed_has_a_range(seed: str, refused) -> None:
    assert f"seed={seed} is not allowed; allowed: whole numbers from 0 to 4294967295" in refused(
        evaluate.main, ["--model", "m", "--output", "o", "--seed", seed]
    )


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        *(("--max-steps", value, "whole numbers of at most 18 digits") for value in ("", "1.5", "١", "1_0", "9" * 30)),
        *(("--noise-std", value, "finite numbers") for value in ("", "nan", "-inf", "1e400", "x", "١")),
        *((name, "", "allowed: ") for name in ("--model", "--output", "--data", "--card-entry")),
    ],
)
def test_an_option_has_one_reader_by_its_type(option: str, value: str, allowed: str, refused) -> None:
    told = refused(evaluate.main, ["--model", "m", "--output", "o", f"{option}={value}"])
    assert f"argument {option}: {value!r} is not allowed; " in told
    assert allowed in told


@pytest.mark.parametrize(
    ("command", "arguments", "told"),
    [
        (demo, ["--port", "-1"], "--port -1 is not allowed; allowed: 0 to 65535"),
        (demo, ["--port", "65536"], "--port 65536 is not allowed; allowed: 0 to 65535"),
        (loop_experiment, ["--output", "o", "--threads", "100000"], "100000 is not allowed; allowed: 1 to 1024"),
        (benchmark, ["--output", "o", "--threads", "0"], "0 is not allowed; allowed: 1 to 1024"),
        (benchmark, ["--output", "o", "--rows", "-1"], "--rows must be at least 1, got -1"),
    ],
)
def test_what_the_system_would_refuse_later(command, arguments: list[str], told: str, refused) -> None:
    assert told in refused(command.parse_arguments, arguments)


@pytest.mark.parametrize("file", ["/etc/passwd", "../model.safetensors", "pytorch_model.bin", 3])
def test_an_index_of_shards_names_files_beside_it(file: object, tiny_model, tmp_path: Path) -> None:
    tiny_model("trm-mlp-t").save_pretrained(tmp_path)
    GridProcessor("grid", grid_shape=(4, 4), alphabet=".1234").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "model-1.safetensors")
    with safe_open(tmp_path / "model-1.safetensors", framework="pt") as weights:
        names = list(weights.keys())

    def index(files: dict[str, object]) -> None:
        content = {"metadata": {}, "weight_map": files}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(content))

    index(dict.fromkeys(names, "model-1.safetensors"))
    load_model(str(tmp_path))
    index(dict.fromkeys(names, "model-1.safetensors") | {names[0]: file})
    with pytest.raises(CheckpointError, match=r"is said to be in .*; allowed: a safetensors file beside it"):
        load_model(str(tmp_path))


def test_half_of_a_character_is_no_text() -> None:
    assert parse_json(r'["\ud83d\ude00", "\\ud800"]') == ["😀", r"\ud800"]
    with pytest.raises(ValueError, match=r"^it holds '\\ud800', half of a character$"):
        parse_json(r'{"source": "\ud800"}')


def test_what_yaml_has_beside_texts_and_numbers(tmp_path: Path) -> None:
    for value, told in (("2020-01-01", "datetime.date"), ("!!set {1}", "{1}"), ("!!binary aGk=", "b'hi'")):
        (tmp_path / "recipe.yaml").write_text(f"base: quickstart\nseed: {value}\n")
        with pytest.raises(ValueError, match=rf"^seed={re.escape(told)}.*; allowed: a whole number \(.*, line 2\)$"):
            parse_recipe([str(tmp_path / "recipe.yaml")])
    with pytest.raises(ValueError, match=r"^data_files: test is 3; allowed: the name of a file, or a list of them$"):
        parse_files("data_files", "{train: a.csv, test: 3}")


def test_an_architecture_that_cannot_be_is_told_in_a_line(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"), user_errors(StrictDataclassError):
        TRMConfig(hidden_size=7, num_attention_heads=2)
    assert capsys.readouterr().err == "error: hidden_size=7 is not divisible by num_attention_heads=2\n"


def test_operators_that_end_the_program_are_told(tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(ValueError, match=r"ends\.py cannot be imported: SystemExit: 3"):
        import_operators(tmp_path / "ends.py")


def test_a_recipe_has_no_empty_text() -> None:
    with pytest.raises(ValueError, match=r"^output_dir=''; allowed: text that is not empty$"):
        parse_recipe(["quickstart", "--output_dir", ""])


def test_what_needs_more_memory_than_there_is(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"), user_errors(ValueError):
        torch.empty(2**62)
    with pytest.raises(RuntimeError, match="another"), user_errors(ValueError):
        raise RuntimeError("another")
    assert capsys.readouterr().err.startswith("error: there is not enough memory (")


def test_a_link_out_of_the_folder_is_not_published(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "model" / "plots").mkdir(parents=True)
    (tmp_path / "model" / "plots" / "a.png").symlink_to(tmp_path / "secret")
    with pytest.raises(ContentsError, match=r"a\.png: is a link out of the folder"):
        select(tmp_path / "model", ["plots/*.png"])
    (tmp_path / "model" / "plots" / "b.png").write_text("x")
    os.replace(tmp_path / "model" / "plots" / "b.png", tmp_path / "model" / "plots" / "c.png")
    (tmp_path / "model" / "plots" / "a.png").unlink()
    (tmp_path / "model" / "plots" / "a.png").symlink_to("c.png")  # within the folder: as a user expects
    assert sorted(select(tmp_path / "model", ["plots/*.png"])) == ["plots/a.png", "plots/c.png"]


def test_none_and_empty_text_are_no_votes() -> None:
    for nothing in (None, ""):
        assert pass_at_k([[nothing, "10", nothing]], ["10"], ["a"], k=[1]) == {"pass@1": 1.0}


def test_what_has_no_numbers_is_no_device() -> None:
    with pytest.raises(ValueError, match="'meta' cannot be used here"):
        choose_device("meta")


@pytest.mark.parametrize("field", ["initial_state_std", "halt_bias", "rope_theta"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_config_holds_finite_numbers(field: str, value: float) -> None:
    with pytest.raises(Exception, match=rf"{field}={value}"):
        TRMConfig(**{field: value})


def test_weights_of_whole_numbers_are_not_cast(tiny_model, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tiny_model("trm-mlp-t").save_pretrained(tmp_path)
    GridProcessor("grid", grid_shape=(4, 4), alphabet=".1234").save_pretrained(tmp_path)
    weights = {name: value.char() for name, value in load_file(tmp_path / "model.safetensors").items()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"of another kind .*: whole numbers for floating-point numbers"):
        load_model(str(tmp_path))
