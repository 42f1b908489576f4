"""scripts/report_votes.py: what it writes from folders of votes, alone, in parts, compared, and from bad folders."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from modeling_trm.commands import vote_report
from modeling_trm.voting.comparison import compare_votes
from modeling_trm.voting.folder import Vote, begin_folder, fingerprint_inputs, num_chunks, write_chunk
from modeling_trm.voting.records import VoteRecords, load_records
from modeling_trm.voting.report import summarise_votes
from tests.voting.samples import random_inputs, records_of

CHUNK_SIZE = 50


def store(records: VoteRecords, folders: Sequence[Path], weights: str = "0") -> None:
    """Write the records as the votes of one evaluation, its chunks dealt out to the folders."""
    votes = []
    columns = records.input_of_vote, records.view_of_vote, records.grid_of_vote, records.halt_probability
    for number, view, grid, halt in zip(*(column.tolist() for column in columns)):
        votes.append(Vote(number, view, "" if grid < 0 else records.grids[grid], halt, 16))
    manifest = records.manifest | {
        "format": 1, "data_fingerprint": fingerprint_inputs(records.inputs), "views_fingerprint": "0",
        "precision": "float32",
        "weights_sha256": weights, "max_steps": 16, "halt": False, "num_views": 30,
        "num_items": len(votes), "chunk_size": CHUNK_SIZE,
    }  # fmt: skip
    for place, folder in enumerate(folders):
        begin_folder(folder, manifest, records.inputs)
        for number in range(place, num_chunks(manifest), len(folders)):
            write_chunk(folder, number, votes[number * CHUNK_SIZE : (number + 1) * CHUNK_SIZE])


@pytest.fixture
def votes(tmp_path: Path) -> Path:
    store(records_of(random_inputs(0, skill=0.6), model="strong"), [tmp_path / "strong"])
    store(records_of(random_inputs(0, skill=0.2), model="weak"), [tmp_path / "weak"], weights="1")
    return tmp_path


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_report(votes: Path, capsys) -> None:
    assert vote_report.main([str(votes / "strong"), "--output", str(votes / "out"), "--seed", "5"]) == 0
    assert read(votes / "out" / "report.json") == summarise_votes(load_records(votes / "strong"), seed=5)
    files = {path.relative_to(votes / "out").as_posix() for path in (votes / "out").rglob("*") if path.is_file()}
    plots = {f"plots/{name}.png" for name in ("pass_at_k", "correct_rank", "vote_entropy")}
    assert files == {"report.json", "report.md", "submission.json"} | plots
    shown = capsys.readouterr().out
    assert (votes / "out" / "report.md").read_text(encoding="utf-8") in shown
    assert all(str(votes / "out" / name) in shown for name in files)


def test_parts_of_one_evaluation_give_the_same_report(votes: Path) -> None:
    records = records_of(random_inputs(0, skill=0.6), model="strong")
    parts = [votes / f"part{number}" for number in range(3)]
    store(records, parts)
    assert vote_report.main([*map(str, parts), "--output", str(votes / "parts")]) == 0
    assert vote_report.main([str(votes / "strong"), "--output", str(votes / "whole")]) == 0
    for name in ("report.json", "report.md", "submission.json", "plots/pass_at_k.png"):
        assert (votes / "parts" / name).read_bytes() == (votes / "whole" / name).read_bytes(), name


def test_comparison(votes: Path, capsys) -> None:
    strong, weak = str(votes / "strong"), str(votes / "weak")
    assert vote_report.main([strong, "--compare", weak, "--output", str(votes / "out")]) == 0
    comparison = compare_votes(load_records(strong), load_records(weak), (strong, weak))
    del comparison["reports"]
    assert read(votes / "out" / "comparison.json") == comparison
    assert (votes / "out" / "plots" / "comparison_pass_at_k.png").is_file()
    assert (votes / "out" / "comparison.md").read_text(encoding="utf-8") in capsys.readouterr().out
    arguments = [strong, "--compare", weak, "--names", "one", "two", "--output", str(votes / "named")]
    assert vote_report.main(arguments) == 0
    assert (
        (votes / "named" / "comparison.md").read_text(encoding="utf-8").startswith("# arc, transductive protocol: one")
    )


def test_checkpoints_add_up_only_when_asked(votes: Path, refused) -> None:
    arguments = [str(votes / "strong"), str(votes / "weak"), "--output", str(votes / "out")]
    assert refused(vote_report.main, arguments).startswith("error: ")
    assert not (votes / "out").exists()
    assert vote_report.main([*arguments, "--accumulate"]) == 0
    counts = [load_records(votes / name) for name in ("strong", "weak")]
    assert read(votes / "out" / "report.json")["counts"]["votes"] == sum(map(len, counts))
    assert "2 evaluations added up" in (votes / "out" / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "error: "),
        (["strong", "--compare", "other"], "the reference differs"),
        (["strong", "--compare", "weak", "--names", "a", "a"], "names must differ"),
    ],
)
def test_user_errors(votes: Path, monkeypatch, refused, arguments: list[str], message: str) -> None:
    store(records_of(random_inputs(3)), [votes / "other"])
    monkeypatch.chdir(votes)
    assert message in refused(vote_report.main, [*arguments, "--output", "out"])
    assert not (votes / "out").exists()


@pytest.mark.parametrize("extra", [["--seed", "-1"], ["--names", "a", "b"]])
def test_wrong_arguments(extra: list[str], refused) -> None:
    assert extra[0] in refused(vote_report.parse_arguments, ["votes", "--output", "out", *extra])


def test_help_shows_examples_without_loading_pytorch() -> None:
    code = "import sys; from modeling_trm.commands.vote_report import parse_arguments as parse\n"
    code += "parse(['r', '--output', 'o'])\n"
    code += "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    root = Path(vote_report.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
    shown = subprocess.run(
        [sys.executable, "scripts/report_votes.py", "--help"], cwd=root, check=True, capture_output=True, text=True
    )
    assert "examples:" in shown.stdout and "--accumulate" in shown.stdout
