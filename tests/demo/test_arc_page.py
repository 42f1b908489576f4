"""ARC on the page: what is asked, read and shown is what the processor and solve() make of it."""

import json
from pathlib import Path

import pytest
import torch

from datasets_builders.arc_tasks import load_tasks
from modeling_trm import GridProcessor
from modeling_trm.arc_task_trm import task_name
from modeling_trm.demo.contents import EXAMPLES
from modeling_trm.utils.loading import load_model
from tests.demo.browser import Browser
from tests.demo.conftest import ARC, save_arc_model, write_arc_tasks
from tests.demo.test_page import HALT_TOLERANCE, Visit, choose, middle, press, solve, text

pytestmark = pytest.mark.slow

SOLVE_ARC = """(async () => {
  const { Solver, solve } = await import("/solver.js");
  const { cellsOfTokens, crop, gridOf, tokensOf } = await import("/arc.js");
  const contents = await (await fetch("/demo.json")).json();
  const model = contents.models[3], kind = contents.kinds[2];
  const solver = new Solver(model, contents.runtime);
  await solver.load();
  const solved = [];
  for (const example of kind.examples) {
    const tokens = tokensOf(gridOf(example, kind), kind);
    const options = { maxSteps: model.max_steps, halt: true, puzzleId: model.puzzle_ids[example.name] };
    const { answers, steps, haltProbability } = await solve(solver, tokens, options);
    const grid = crop(cellsOfTokens(answers), kind).map((row) => row.map(Number));
    solved.push({ name: example.name, tokens, answers, steps, haltProbability, grid });
  }
  return solved;
})()"""


def test_arc_answers_are_those_of_solve(modules: Browser, tmp_path: Path) -> None:
    """Each with the task's row of the puzzle table; and what is asked, read and shown, as the processor does."""
    write_arc_tasks(tmp_path / "tasks")
    save_arc_model(tmp_path)
    model, processor = load_model(str(tmp_path / ARC)), GridProcessor.from_pretrained(tmp_path / ARC)
    tasks = {task_name(task): task for task in load_tasks("training", data_dir=tmp_path / "tasks")}
    found = modules.run(SOLVE_ARC)
    assert len(found) == EXAMPLES
    input_ids = torch.stack([processor.encode(tasks[one["name"]].test[0].input) for one in found])
    rows = torch.tensor([model.puzzle_index.rows_of(one["name"])[0] for one in found])
    expected = model.solve(input_ids, rows, engine="eager")
    assert [one["tokens"] for one in found] == input_ids.tolist()
    assert [one["answers"] for one in found] == expected.answers.tolist()
    assert not torch.equal(expected.answers, model.solve(input_ids, engine="eager").answers)  # the rows matter
    assert [one["grid"] for one in found] == [processor.decode(answer) or [] for answer in expected.answers]
    assert [one["steps"] for one in found] == expected.steps.tolist()
    halts = torch.tensor([one["haltProbability"] for one in found])
    torch.testing.assert_close(halts, expected.halt_probability, rtol=0, atol=HALT_TOLERANCE)


def test_an_arc_task_is_shown_asked_and_changed(visit: Visit, pictures: Path, tmp_path: Path) -> None:
    browser = visit()
    choose(browser, "kind", "2")
    browser.wait(f"document.getElementById('loading').textContent.includes('{ARC}: ready')")
    contents = json.loads(browser.run("fetch('/demo.json').then((answer) => answer.text())"))
    example = contents["kinds"][2]["examples"][0]
    assert text(browser, "#pairs h3") == ["Demonstrations", "Asked"]
    written = "document.getElementById('text').value.replaceAll('\\n', '/')"
    assert browser.run(written) == example["test"][0][0]
    solve(browser)
    assert text(browser, "#shown") == ["4"]
    assert text(browser, ".verdict")[0].endswith("cells differ from the task's own answer.")  # its weights are random
    browser.picture(pictures / "arc.png")
    browser.run("document.querySelector('.pair button').click()")  # the first demonstration is asked
    assert browser.run(written) == example["train"][0][0]
    press(browser, "Empty grid")
    press(browser, "7")
    browser.drag([middle(browser, '[data-place="23"]')])  # row 4, column 6
    assert browser.run(written) == "000000/000000/000000/000007"
    solve(browser)
    assert text(browser, ".verdict")[0].endswith("what is right is not known here.")
    file = tmp_path / "mine.json"
    file.write_text(
        '{"train": [{"input": [[1, 2]], "output": [[3]]}], "test": [{"input": [[4], [5]]}]}', encoding="utf-8"
    )
    browser.choose_file("#file", file)
    browser.wait(f"{written} === '4/5'")
    assert text(browser, "#boards figcaption") == [f"{ARC}: the puzzle, of a task that it was not trained on"]
    assert text(browser, "#example optgroup:last-child option") == ["task mine"]
    broken = tmp_path / "broken.json"
    broken.write_text('{"train": []}', encoding="utf-8")
    browser.choose_file("#file", broken)
    browser.wait("document.getElementById('problem').textContent.includes('broken.json is no ARC task')")
    nodes = browser.accessibility_tree()
    names = [node.get("name", {}).get("value", "") for node in nodes if node["role"]["value"] in ("button", "image")]
    assert all(names) and "Demonstrations, 1, output, 1 by 1: 3" in names
    choose(browser, "kind", "0")
    assert text(browser, "#pairs") == [""]
