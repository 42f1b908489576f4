"""--columns and --characters of the commands: the same puzzles as `load_puzzles` with the same arguments."""

import ast
import json
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from datasets_builders.features import load_puzzles
from modeling_trm import GridProcessor
from modeling_trm.commands import build_data, compare, diagnose, evaluate, options, solve, sweep, vote
from modeling_trm.training.fields import parse_mapping

COMMANDS = {
    evaluate: ["--model", "none", "--output", "none"],
    vote: ["--model", "none", "--output", "none"],
    sweep: ["--model", "none", "--output", "none", "--noise-std", "1"],
    compare: ["--models", "one", "two", "--output", "none"],
    diagnose: ["--model", "none", "--output", "none"],
    solve: ["--model", "none", "puzzle"],
    build_data: ["sudoku", "--output", "none"],
}
ANSWER = "1234341221434321"
LETTERS = str.maketrans("123.", "abc_")
TOLD = ["--columns", "question=start", "answer=end", "--characters", "_abc4"]


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "mine.csv"
    rows = [(f"{'.' * gap}{ANSWER[gap:]}".translate(LETTERS), ANSWER.translate(LETTERS)) for gap in (1, 2, 3)]
    path.write_text("start,note,end\n" + "".join(f"{start},x,{end}\n" for start, end in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def checkpoint(tiny_model, tmp_path: Path):
    def save(processor: GridProcessor) -> str:
        sizes = {"vocab_size": processor.vocab_size, "seq_len": processor.seq_len, "L_cycles": 1, "num_puzzles": 1}
        folder = tmp_path / processor.task
        tiny_model("trm-mlp-t", **sizes, blank_token_id=processor.blank_token_id).save_pretrained(folder)
        processor.save_pretrained(folder)
        return str(folder)

    return save


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__.rpartition(".")[2])
def test_every_command_that_reads_puzzles_has_them(command: ModuleType, refused) -> None:
    told = options.reading(command.parse_arguments([*COMMANDS[command], *TOLD]))
    assert told == {"columns": {"question": "start", "answer": "end"}, "characters": "_abc4"}
    assert options.reading(command.parse_arguments(COMMANDS[command])) == {"columns": None, "characters": None}
    error = refused(command.parse_arguments, [*COMMANDS[command], "--columns", "start"])
    assert "argument --columns: 'start' must be ROLE=NAME, as in question=start; what is no column, as a file" in error


def test_evaluate_and_build_data_read_what_load_puzzles_reads(table: str, checkpoint, tmp_path: Path) -> None:
    columns = {"question": "start", "answer": "end"}
    puzzles = load_puzzles("sudoku", "test", data_files=table, columns=columns, characters="_abc4")
    assert puzzles.processor.decode(puzzles.labels[0]) == ANSWER
    model = checkpoint(GridProcessor("sudoku", grid_shape=(4, 4)))
    output = tmp_path / "evaluated"
    assert evaluate.main(["--model", model, "--data", table, *TOLD, "--max-steps", "1", "--output", str(output)]) == 0
    (metrics,) = json.loads((output / "metrics.json").read_text(encoding="utf-8"))["evaluations"].values()
    assert (metrics["count"], metrics["fingerprint"]) == (3, puzzles.fingerprint)
    built = tmp_path / "built"
    assert build_data.main(["sudoku", "--data-files", f"test={table}", *TOLD, "--output", str(built)]) == 0
    assert load_puzzles("sudoku", "test", data_dir=built).fingerprint == puzzles.fingerprint


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("start,note,answer", {"question": "NAME"}),
        ("puzzle,quiz,answer", {"question": "NAME"}),
        ("", {"question": "column 1", "answer": "column 2"}),
    ],
)
def test_what_a_message_says_to_write_and_to_type_is_understood(header: str, expected: dict, tmp_path: Path) -> None:
    """By Python, by the commands, and by trm train, whose --columns is a field of a recipe."""
    path = tmp_path / "mine.csv"
    path.write_text(f"{header}\n.{ANSWER[1:]},.{ANSWER[1:]},{ANSWER}\n".lstrip(), encoding="utf-8")
    with pytest.raises(ValueError, match="columns=") as caught:
        load_puzzles("sudoku", "test", data_files=path)
    said = re.search(r"columns=(\{.*?\}) \((--columns .*); trm train: (--columns .*)\)", str(caught.value))
    typed = evaluate.parse_arguments([*COMMANDS[evaluate], *shlex.split(said[2])])
    assert ast.literal_eval(said[1]) == options.reading(typed)["columns"] == expected
    assert parse_mapping("columns", shlex.split(said[3])[1]) == expected


def test_solve_reads_the_column_named(table: str, checkpoint, capsys: pytest.CaptureFixture[str]) -> None:
    model = checkpoint(GridProcessor("sudoku", grid_shape=(4, 4)))
    assert solve.main(["--model", model, table, *TOLD, "--max-steps", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["puzzle"] == ("." + ANSWER[1:]).translate(LETTERS)


@pytest.mark.parametrize("command", [evaluate, vote, solve], ids=lambda command: command.__name__.rpartition(".")[2])
@pytest.mark.parametrize("told", [TOLD[:2], TOLD[-2:]], ids=["columns", "characters"])
def test_arc_refuses_them(command: ModuleType, told: list[str], checkpoint, tmp_path: Path, refused) -> None:
    model = checkpoint(GridProcessor("arc", grid_shape=(3, 3)))
    rest = ["012/340/111"] if command is solve else ["--output", str(tmp_path / "none")]
    assert f"{told[0]} is for tables and grids of text; arc is read from JSON" in refused(
        command.main, ["--model", model, *rest, *told]
    )
