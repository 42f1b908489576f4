"""scripts/solve.py: what it prints and writes, and what a bad puzzle or checkpoint gets."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modeling_trm import GridProcessor, GridReasoningPipeline, ReasoningConfig, TRMForGridReasoning
from modeling_trm.commands import solve
from tests.conftest import PUZZLE, SOLVED

SCRIPT = Path(__file__).parents[2] / "scripts" / "solve.py"
CONTRADICTORY = "55..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"


def save(model: TRMForGridReasoning, processor: GridProcessor, folder: Path) -> str:
    """A checkpoint whose answers are digits or maze cells: padding loses every arg max."""
    with torch.no_grad():
        model.lm_head.weight[0] = 0
        model.lm_head.weight[1:] += 0.01 * torch.arange(1, len(model.lm_head.weight))[:, None]
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def sudoku(tiny_model, tmp_path: Path) -> str:
    model = tiny_model("trm-mlp-t", vocab_size=11, seq_len=81, blank_token_id=1, num_puzzles=1)
    return save(model, GridProcessor("sudoku"), tmp_path / "sudoku")


@pytest.fixture
def maze(tiny_model, tmp_path: Path) -> str:
    model = tiny_model("trm-attn", vocab_size=6, seq_len=20, num_puzzles=1)
    return save(model, GridProcessor("maze", grid_shape=(4, 5)), tmp_path / "maze")


def test_a_solved_grid_is_valid_and_a_guess_is_not(sudoku: str, capsys) -> None:
    """The given cells are kept, so a full grid is its own answer; a random model's guess breaks the rules."""
    assert solve.main(["--model", sudoku, SOLVED, PUZZLE]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("NOT a valid solution") == 1
    assert "a valid solution\n" in shown.out.splitlines(keepends=True)
    assert "halt probability" in shown.out
    assert "5 3 4 | 6 7 8 | 9 1 2" in shown.out
    assert shown.err == ""


def test_trace_json_and_output(sudoku: str, tmp_path: Path, capsys) -> None:
    arguments = ["--model", sudoku, "--trace", "--no-halt", "--max-steps", "3", "--json"]
    assert solve.main([*arguments, "--output", str(tmp_path / "answers.json"), PUZZLE]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results == json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))
    (result,) = results
    assert result["steps"] == 3
    assert [frame["step"] for frame in result["trace"]] == [1, 2, 3]
    assert result["trace"][-1]["answer"] == result["answer"]
    assert result["valid"] is False
    assert result["fault"]
    assert all(answer == given for answer, given in zip(result["answer"], PUZZLE, strict=True) if given != ".")
    assert 0 <= result["halt_probability"] <= 1

    common = ["--model", sudoku, "--no-halt", "--max-steps", "2"]
    assert solve.main([*common, "--trace", PUZZLE]) == 0  # the puzzle behind it is none of its values
    shown = capsys.readouterr().out
    assert "step" in shown and "|" not in shown and len(shown.splitlines()) <= 8
    for whole in (["--trace", "all", PUZZLE], ["--trace=all", PUZZLE], [PUZZLE, "--trace", "all"]):
        assert solve.main([*common, *whole]) == 0
        shown = capsys.readouterr().out
        assert "step 1: " in shown and "step 2: " in shown
        assert shown.count("|") >= 3 * 9 * 2  # the puzzle, the grids that changed, the answer


def test_trajectories_and_views_say_how_the_answer_was_chosen(sudoku: str, maze: str, capsys) -> None:
    """Given cells are kept, so all agree on a full grid; the puzzle's answers may differ."""
    common = ["--model", sudoku, SOLVED, PUZZLE, "--max-steps", "2"]
    noisy = "--num-trajectories 3 --noise-std 0.5 --selection valid".split()
    for arguments, line, choice in (
        (
            noisy,
            "chosen among 3 trajectories by the puzzle's rules; 3 of 3 gave this answer, 1 distinct",
            (1, 3, "valid"),
        ),
        (["--views", "4"], "chosen among 4 views by votes; 4 of 4 gave this answer, 1 distinct", (4, 1, None)),
        (
            ["--views", "2", *noisy],
            "chosen among 2 views by votes, each the choice among 3 trajectories by",
            (2, 3, "valid"),
        ),
    ):
        assert solve.main([*common, *arguments]) == 0
        shown = capsys.readouterr().out
        assert line in shown and shown.count("chosen among") == 2
        assert solve.main([*common, *arguments, "--json"]) == 0
        full, other = json.loads(capsys.readouterr().out)
        assert full["valid"] is True
        for result in (full, other):
            assert tuple(result["choice"][name] for name in ("views", "trajectories", "selection")) == choice
            votes = sum(candidate["votes"] for candidate in result["choice"]["votes"])
            assert votes <= (choice[0] if choice[0] > 1 else choice[1])
        assert [candidate["answer"] for candidate in full["choice"]["votes"]] == [SOLVED]
    assert solve.main([*common, "--json"]) == 0
    assert [result["choice"] for result in json.loads(capsys.readouterr().out)] == [None, None]
    assert solve.main(["--model", maze, "#####S   ##  G######", "--views", "9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["choice"]["views"] == 4  # a maze that is not square has no more


def test_bad_puzzles_are_named_and_the_good_one_is_answered(sudoku: str, capsys) -> None:
    unknown = PUZZLE.replace("7", "q", 1)
    assert solve.main(["--model", sudoku, "--json", CONTRADICTORY, unknown, PUZZLE[:80], PUZZLE, "no.txt"]) == 2
    shown = capsys.readouterr()
    errors = shown.err.splitlines()
    assert len(errors) == 4
    assert errors[0].startswith("error: puzzle 1: row 1, column 2: '5' is given twice in row 1")
    assert "also at row 1, column 1" in errors[0]
    assert errors[1].startswith("error: puzzle 2: row 1, column 5: 'q' is not allowed")
    assert "has 80 cells, expected 81 (9 x 9)" in errors[2]
    assert errors[3].startswith("error: no.txt: there is no such file")
    results = json.loads(shown.out)
    assert ["error" in result for result in results] == [True, True, True, False, True]


def test_of_very_many_bad_puzzles_some_are_named(sudoku: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "many.txt"
    path.write_text(f"{PUZZLE}\n" + "12\n" * 500, encoding="utf-8")
    assert solve.main(["--model", sudoku, str(path), "--max-steps", "1"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 21 and errors[0].startswith(f"error: {path}, line 2: the grid has 2 cells, expected 81")
    assert errors[-1] == "error: 480 more of 501 puzzles are wrong"


def test_files_of_tables_and_characters(sudoku: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "kaggle.csv"
    path.write_text(f"quizzes,solutions\n{SOLVED.replace('5', '0')},{SOLVED}\n", encoding="utf-8")
    assert solve.main(["--model", sudoku, str(path), "--json", "--max-steps", "1"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert (result["name"], result["puzzle"]) == (f"{path}, row 1", SOLVED.replace("5", "."))
    letters = SOLVED.translate(str.maketrans("123456789", "ihgfedcba"))
    assert solve.main(["--model", sudoku, letters, "--characters", ".ihgfedcba", "--json", "--max-steps", "1"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["puzzle"] == letters  # as it was asked


def test_only_bad_puzzles(sudoku: str, tmp_path: Path, capsys) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n", encoding="utf-8")
    assert solve.main(["--model", sudoku, CONTRADICTORY, str(empty)]) == 2
    shown = capsys.readouterr()
    assert f"error: {empty}: holds no puzzle" in shown.err
    assert shown.out == ""


def test_stdin(sudoku: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    for text, options in (
        (f"{SOLVED}\n{PUZZLE}\n", []),
        (f"\ufeffstart;end\n{SOLVED};\n{PUZZLE};\n;\n", ["--columns", "question=start"]),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert solve.main(["--model", sudoku, "-", "--json", *options]) == 0
        assert [result["valid"] for result in json.loads(capsys.readouterr().out)] == [True, False]
    monkeypatch.setattr(sys, "stdin", None)  # as `<&-` leaves it
    with pytest.raises(SystemExit):
        solve.main(["--model", sudoku, "-"])
    assert capsys.readouterr().err == "error: stdin: is closed\n"


def test_maze_file(maze: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "maze.txt"
    path.write_text("#####\n#S  #\n#  G#\n#####\n", encoding="utf-8")
    assert solve.main(["--model", maze, str(path), "--trace", "all", "--no-halt"]) == 0
    shown = capsys.readouterr().out
    assert "#####\n#S  #\n#  G#\n#####\n" in shown
    assert "NOT a valid solution" in shown
    assert solve.main(["--model", maze, str(path), "--trace"]) == 0
    drawn = capsys.readouterr().out.split("solution", 1)[1].split("\n\n")[0].splitlines()[1:]
    assert [len(row) for row in drawn] == [5] * 4, drawn
    assert solve.main(["--model", maze, "#####S   ##  G######"]) == 0
    assert solve.main(["--model", maze, "####################"]) == 2
    assert "the maze has 0 cells 'S', expected 1" in capsys.readouterr().err


def test_what_is_not_said_is_the_checkpoints_own(sudoku: str, capsys) -> None:
    """In its reasoning_config.json; `solve` of the model, the pipeline and the command agree."""
    ReasoningConfig(max_steps=3, halt=False, views=2).save_pretrained(sudoku)
    model, processor = TRMForGridReasoning.from_pretrained(sudoku).eval(), GridProcessor("sudoku")
    (by_pipeline,) = GridReasoningPipeline(model=model, feature_extractor=processor)([PUZZLE])
    assert solve.main(["--model", sudoku, PUZZLE, "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["steps"] == 3 == by_pipeline["steps"] == int(model.solve(processor(PUZZLE)["input_ids"]).steps)
    assert result["choice"]["views"] == 2 and result["choice"]["votes"] == by_pipeline["votes"]
    assert solve.main(["--model", sudoku, PUZZLE, "--json", "--max-steps", "2", "--views", "1"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["steps"] == 2 and result["choice"] is None
    (sure,) = [float(model.solve(processor(PUZZLE)["input_ids"], max_steps=1).halt_probability)]
    for halt, steps in ((sure * 0.9, 1), (1 - (1 - sure) * 0.01, 3)):
        assert solve.main(["--model", sudoku, PUZZLE, "--json", "--views", "1", "--halt", str(halt)]) == 0
        assert json.loads(capsys.readouterr().out)[0]["steps"] == steps


def test_arc_tasks(tiny_model, tmp_path: Path, capsys) -> None:
    model = tiny_model("trm-attn", vocab_size=12, seq_len=16, num_puzzles=1)
    with torch.no_grad():
        model.lm_head.weight[:2] = model.lm_head.weight[2:4].mean(0)  # no padding, no end of grid
    model.save_pretrained(tmp_path / "arc")
    GridProcessor("arc", grid_shape=(4, 4)).save_pretrained(tmp_path / "arc")
    pair = {"input": [[1, 2]], "output": [[2, 1]]}
    (tmp_path / "a1.json").write_text(json.dumps({"train": [pair], "test": [{"input": [[3, 4], [5, 6]]}, pair]}))
    common = ["--model", str(tmp_path / "arc"), str(tmp_path / "a1.json"), "12/34"]
    assert solve.main([*common, "--views", "4", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [result["puzzle"] for result in results] == [[[3, 4], [5, 6]], [[1, 2]], [[1, 2], [3, 4]]]
    assert all(result["choice"]["views"] == 4 and result["valid"] is None for result in results)
    for trace, expected in (["--trace"], "task a1, test 2\nstep"), (["--trace", "all"], "task a1, test 2\n1 2\n"):
        assert solve.main([*common, *trace]) == 0
        assert expected in capsys.readouterr().out


def test_a_guess_at_an_unknown_task_is_called_one(tmp_path: Path, capsys) -> None:
    """The shipped checkpoint knows tasks by their ids; the same grids under another name are new to it."""
    task = {
        "train": [{"input": [[2, 7, 7], [2, 8, 7]], "output": [[5, 7, 7], [5, 8, 7]]}],
        "test": [{"input": [[6, 7, 7, 6], [6, 7, 6, 7], [7, 7, 7, 6], [7, 6, 7, 6]]}],
    }
    known, unknown = ({name: task} for name in ("b1948b0a", "mine"))
    for tasks, is_guess in ((known, False), (unknown, True)):
        (tmp_path / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")
        assert solve.main(["--model", "tr-mamba2attn-symbols-arc", str(tmp_path / "tasks.json")]) == 0
        shown = capsys.readouterr().out
        assert ("a guess: the model's puzzle table has no row for this task" in shown) is is_guess
        assert ("2 7 7 2\n2 7 2 7\n7 7 7 2\n7 2 7 2" in shown) is not is_guess


def test_puzzles_of_ones_own_have_no_rules(tiny_model, tmp_path: Path, capsys, refused) -> None:
    model = tiny_model("trm-attn", vocab_size=4, seq_len=6, num_puzzles=1)
    folder = save(model, GridProcessor("grid", grid_shape=(2, 3), alphabet="abc"), tmp_path / "grid")
    assert solve.main(["--model", folder, "abcabc", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["valid"] is None
    assert solve.main(["--model", folder, "abcabd"]) == 2
    assert "row 2, column 3: 'd' is not allowed" in capsys.readouterr().err
    for arguments, message in (
        (["--views", "2"], "views=2: task='grid' has no known augmentations"),
        ("--num-trajectories 2 --random-start --selection valid".split(), "task='grid' has no known rules"),
    ):
        assert message in refused(solve.main, ["--model", folder, "abcabc", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "runs/of/nobody", PUZZLE], "error: checkpoint 'runs/of/nobody': no such folder"),
        (["--model", "DIR", "--max-steps", "0", PUZZLE], "--max-steps 0 is not allowed; allowed: whole numbers from 1"),
        (["--model", "DIR", "--views", "0", PUZZLE], "--views 0 is not allowed; allowed: whole numbers from 1"),
        (["--model", "DIR", "--num-trajectories", "2", PUZZLE], "all trajectories would be the same one"),
        (["--model", "DIR", *"--trace --num-trajectories 2 --random-start".split(), PUZZLE], "--trace is for a single"),
        (["--model", "DIR"], "the following arguments are required: PUZZLE"),
        (["--model", "DIR", PUZZLE, "--device", "abacus"], "error: device 'abacus' cannot be used here"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, refused) -> None:
    assert message in refused(solve.main, arguments)


def test_as_a_process(sudoku: str) -> None:
    command = [sys.executable, "-W", "error", SCRIPT, "--model", sudoku, CONTRADICTORY]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 2
    assert shown.stderr.startswith("error: puzzle 1: row 1, column 2: '5' is given twice")
    assert "Traceback" not in shown.stderr


@pytest.fixture
def sizes(tiny_model, tmp_path: Path) -> dict[str, str]:
    """Checkpoints that answer grids of several sizes: of mazes one of 5 x 5, of Sudokus of 9 x 9 and 4 x 4."""
    fields = {"block_operators": ["conv2d"], "position_embedding": "none", "num_puzzles": 1}
    maze = tiny_model("trm-attn", **fields, vocab_size=6, seq_len=25)
    fields |= {"block_operators": ["axial", "symbols"], "symbol_fields": True}
    sudoku = tiny_model("trm-attn", **fields, vocab_size=11, seq_len=81)
    small = tiny_model("trm-attn", **fields, vocab_size=6, seq_len=16)
    return {
        "maze": save(maze, GridProcessor("maze", grid_shape=(5, 5)), tmp_path / "maze"),
        "sudoku": save(sudoku, GridProcessor("sudoku"), tmp_path / "sudoku"),
        "small": save(small, GridProcessor("sudoku", grid_shape=(4, 4)), tmp_path / "small"),
    }


MAZE = "S  ##  G#"
FOUR = "1..4......1.4..2"
SIXTEEN = "123456789ABCDEFG" + "." * 240
ROWS = "\n".join(SIXTEEN[start : start + 16] for start in range(0, 256, 16))


@pytest.mark.parametrize(
    ("task", "text", "side", "wrong"),
    [
        ("maze", MAZE, 3, 0),
        ("maze", f"{MAZE}\n{MAZE}\n", 3, 0),  # a maze a line
        ("maze", "S  #\n##  \n ###\n   G\n", 4, 0),  # in rows, each of which is as long as a maze of 2 x 2
        ("sudoku", FOUR, 4, 0),
        ("sudoku", f"{FOUR}\n{FOUR.replace('2', '4')}\n", 4, 1),  # a clue twice does not change the size
        ("sudoku", "\n".join([FOUR] * 16), 4, 0),  # or one grid of 16 x 16, were its clues not given twice
        ("sudoku", ROWS, 16, 0),  # or 16 puzzles of 4 x 4, were they written with its digits
        ("sudoku", f"puzzle,solution\n{SIXTEEN},\n{SIXTEEN},\n", 16, 0),
        ("sudoku", SIXTEEN.replace("G", "0"), 16, 1),  # a blank or a digit? asked of that size
    ],
)
def test_puzzles_of_another_size_are_read_in_it(
    task: str, text: str, side: int, wrong: int, sizes, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert solve.main(["--model", sizes[task], "-", "--json", "--max-steps", "1"]) == (2 if wrong else 0)
    shown = capsys.readouterr()
    assert shown.err.count(f"note: the puzzles are {side} x {side}, which this checkpoint of ") == 1
    assert shown.err.count("error: ") == wrong and "expected" not in shown.err
    assert shown.err.count("stdin: read 'puzzle' as the question") == text.count("puzzle")
    assert all(len(one["puzzle"]) == side**2 for one in json.loads(shown.out) if "error" not in one)


def test_a_size_in_doubt_is_asked_for_and_one_that_is_said_is_taken(sizes, tmp_path: Path, capsys) -> None:
    hint = "note: this checkpoint answers square grids of other sizes too, with --side N"
    for task, puzzles in (
        ("sudoku", [FOUR, SIXTEEN]),
        ("sudoku", [PUZZLE, FOUR]),
        ("sudoku", ["puzzles_of_mine."]),  # a misspelt file of so many letters
        ("maze", [MAZE, "S  ##  G# ##   #"]),
    ):
        assert solve.main(["--model", sizes[task], *puzzles, "--max-steps", "1"]) == 2
        shown = capsys.readouterr().err
        assert hint in shown and "cells, expected " in shown and "the puzzles are" not in shown
    assert solve.main(["--model", sizes["maze"], MAZE, "--side", "3", "--json"]) == 0
    assert solve.main(["--model", sizes["maze"], MAZE, "--side", "4"]) == 2
    assert "has 9 cells, expected 16" in capsys.readouterr().err
    zero = SIXTEEN.replace("G", "0")
    path = tmp_path / "large.txt"
    path.write_text(zero)
    for given in (zero, str(path)):
        common = ["--model", sizes["sudoku"], given, "--max-steps", "1", "--json"]
        assert solve.main([*common, "--characters", ".123456789ABCDEF0"]) == 0  # which say how many digits there are
        assert json.loads(capsys.readouterr().out)[0]["puzzle"] == zero


def test_a_faulty_puzzle_does_not_change_the_size_of_the_others(sizes, tmp_path: Path, capsys) -> None:
    """16 lines of 16 may be one grid of 16 x 16."""
    for fault, has_hint in ((FOUR.replace("2", "4"), False), (FOUR.replace("2", "9"), True)):  # 9: of a larger one?
        path = tmp_path / "small.txt"
        path.write_text("\n".join([FOUR] * 15 + [fault]))
        assert solve.main(["--model", sizes["small"], str(path), "--max-steps", "1", "--json"]) == 2
        shown = capsys.readouterr()
        assert [len(one["puzzle"]) for one in json.loads(shown.out)] == [16] * 16
        assert "error: " in shown.err and "line 16: row 4, column 4: " in shown.err
        assert ("with --side N" in shown.err) is has_hint


def test_a_checkpoint_of_one_size_says_its_own(sudoku: str, capsys) -> None:
    assert solve.main(["--model", sudoku, FOUR]) == 2
    assert (
        capsys.readouterr().err
        == f"error: puzzle 1: {FOUR!r} has 16 cells, expected 81 (9 x 9), and is no file either\n"
    )
