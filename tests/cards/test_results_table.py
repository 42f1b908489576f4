"""The README's table of results is what the command makes of the cards."""

import json
from pathlib import Path

import pytest

from modeling_trm.cards.results_table import BEGIN, COMPARABLE, END, results_table, update_text
from modeling_trm.utils.shipped import shipped_checkpoints
from scripts import results_table as command

ROOT = Path(command.__file__).parents[1]


def test_the_readme_is_up_to_date() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count(BEGIN) == 1
    assert update_text(readme, results_table(ROOT / "model_cards")) == readme, BEGIN


def test_every_checkpoint_for_sudoku_has_its_rows_and_every_published_figure_its_source() -> None:
    lines = results_table(ROOT / "model_cards").splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| ")][1:]
    assert all(len(row) == 9 for row in rows)
    for name, folder in shipped_checkpoints("sudoku").items():
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        own = [row for row in rows if f"[{name}](model_cards/{name}/README.md)" in row[0]]
        seconds = sum(run["seconds"] for run in [*metrics.get("before", []), metrics])
        assert own and all(metrics["hardware"] in row[7] and f"{seconds:,.0f} s" in row[7] for row in own)
    published = [row for row in rows if not row[0].startswith("| **")]
    assert len(published) > 10 and all("](https://" in row[8] for row in published)


def image(cards: Path, ways: list[dict]) -> None:
    folder = cards / "one"
    folder.mkdir(parents=True)
    shipped = shipped_checkpoints()["tr-mamba2mlpt-sudoku-quickstart"]
    for name in ("config.json", "preprocessor_config.json", "metrics.json"):
        (folder / name).write_bytes((shipped / name).read_bytes())
    metrics = json.loads((folder / "metrics.json").read_text())
    test = metrics["evaluations"]["test"] | {"ways": ways}
    metrics["evaluations"] = {"test": test, "maze": test | {"task": "maze"}}
    metrics["flops"] = 123456789
    (folder / "metrics.json").write_text(json.dumps(metrics))


def way(name: str, of: str, solved: int, **more: str) -> dict:
    figures = {"count": 50, "exact_accuracy": solved / 50, "ci95": [solved / 100, 0.9]}
    return {"way": name, "pass": of, **figures, **more}


def test_halting_by_the_published_steps_stands_in_for_all_of_them(tmp_path: Path) -> None:
    halting = [way(f"halting at 0.95, up to {steps} steps", "halting", solved) for steps, solved in ((16, 8), (64, 9))]
    whole = [way("16 steps", "steps", 7)]
    for number, (steps, shown) in enumerate((([], ["16 %", "18 %"]), (whole, ["14 %", "18 %"]))):
        image(tmp_path / str(number), [*steps, *halting])
        own = [line for line in results_table(tmp_path / str(number), full=True).splitlines() if "**[one](" in line]
        assert [line.split(" | ")[3].replace(".0", "") for line in own] == shown


def test_of_each_pass_the_row_of_the_most_compute_that_a_user_can_choose(tmp_path: Path) -> None:
    views = [way("v8", "views", 20, chosen_by="vote"), way("v32", "views", 21, chosen_by="vote")]
    image(
        tmp_path,
        [
            way("8 steps", "steps", 9),
            way("16 steps", "steps", 10),
            way("64 steps", "steps", 11),
            *views,
            way("none", "views", 50, chosen_by="any"),
        ],
    )
    table = results_table(tmp_path, full=True)
    own = [line for line in table.splitlines() if "**[one](" in line]
    assert [line.split(" | ")[2:6] for line in own] == [
        ["16 steps", "20.0 %", "10.0 to 90.0", "50"],
        ["64 steps", "22.0 %", "11.0 to 90.0", "50"],
        ["v32", "42.0 %", "21.0 to 90.0", "50"],
    ]
    assert all("1.2e+08 FLOP" in line for line in own)
    assert table.count("- `test`: the shipped sample") == 1


def test_the_readme_has_the_comparable_evaluation_by_the_published_steps_and_by_all(tmp_path: Path) -> None:
    image(tmp_path, [])
    metrics = json.loads((tmp_path / "one" / "metrics.json").read_text())
    plain = {name: value for name, value in metrics["evaluations"]["test"].items() if name != "ways"}
    by_step = [number / 100 for number in range(20)]
    plain |= {"steps": 20, "count": 100, "by_step": by_step, "exact_accuracy": 0.19, "exact_accuracy_ci95": [0, 1]}
    metrics["evaluations"] = {COMPARABLE: plain, "test": plain | {"steps": 16, "by_step": by_step[:16]}}
    (tmp_path / "one" / "metrics.json").write_text(json.dumps(metrics))

    def rows(table: str) -> list[list[str]]:
        return [line.split(" | ")[2:5] for line in table.splitlines() if "**[one](" in line]

    deep = [["16 steps", "15.0 %", "9.3 to 23.3"], ["20 steps", "19.0 %", "12.5 to 27.8"]]
    assert rows(results_table(tmp_path)) == deep
    assert rows(results_table(tmp_path, full=True)) == [*deep, ["16 steps", "19.0 %", "12.5 to 27.8"]]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], refused) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    assert command.main(["--cards", str(ROOT / "model_cards"), "--update", str(page)]) == 0
    printed = capsys.readouterr().out
    assert page.read_text(encoding="utf-8") == f"before\n{BEGIN}\n{printed}{END}\nafter\n"
    page.write_text("no markers\n", encoding="utf-8")
    assert "page.md: has no lines '<!-- results: begin" in refused(
        command.main, ["--cards", str(ROOT / "model_cards"), "--update", str(page)]
    )
    assert page.read_text(encoding="utf-8") == "no markers\n"
