"""What is killed (kills.py), and what must hold after it: nothing is lost or left, and given again it comes to its end.

A scenario is called with a folder of its own and which moments are meant, and returns how many processes were killed.
"""

import csv
import json
import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from tests.robustness.kills import audited, import_what_is_imported, kill_everywhere, run_to_end, state
from tests.robustness.recipe import TINY_RECIPE

PUZZLES = (("1234341221434321", "1.34.41.2.4343.1"), ("2143341212344321", "2143..121.344.21"))  # answer, question
TIMES = ("seconds", "puzzles_per_second", "command", "steps_per_second")


def content(folder: Path) -> dict[str, bytes]:
    """All files below the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def fill(folder: Path, files: dict[str, bytes]) -> None:
    """The folder, with these files and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(text)


def file_scenario(folder: Path, which: slice) -> int:
    """A file holds its old content or its new one, and the next writer leaves nothing beside it."""
    from modeling_trm.utils.files import write_bytes

    target, old, new = folder / "figures.json", b"old" * 1000, b"new" * 2000

    def check(at: int) -> None:
        assert target.read_bytes() in (old, new), f"operation {at}: neither the old content nor the new one"
        write_bytes(target, new)
        assert content(folder) == {"figures.json": new}, f"operation {at}: left {os.listdir(folder)}"

    def write() -> None:
        write_bytes(target, new)

    return kill_everywhere(lambda: fill(folder, {"figures.json": old}), write, check, which, lambda: state(folder))


def folder_scenario(folder: Path, which: slice) -> int:
    """A folder that is built anew is, after the next build, whole; before, what was there is whole somewhere."""
    from modeling_trm.utils.outputs import new_folder

    target = folder / "set"

    def build(text: bytes) -> None:
        with new_folder(target, overwrite=True) as new:
            (new / "data").mkdir()
            (new / "data" / "a.bin").write_bytes(text)
            (new / "b.bin").write_bytes(text)

    def prepare() -> None:
        fill(folder, {})
        build(b"old")

    def check(at: int) -> None:
        whole = [path for path in (target, folder / ".set.trm-old") if (path / "data" / "a.bin").is_file()]
        assert whole, f"operation {at}: the former folder is lost"
        build(b"new")
        assert (target / "data" / "a.bin").read_bytes() == (target / "b.bin").read_bytes() == b"new"
        assert os.listdir(folder) == ["set"], f"operation {at}: left {os.listdir(folder)}"

    return kill_everywhere(prepare, lambda: build(b"new"), check, which, lambda: state(folder))


def card_scenario(folder: Path, which: slice) -> int:
    """The files of a card are all old or all new once the next update begins."""
    from modeling_trm.cards import update

    old = {"metrics.json": b"old", "README.md": b"old", "plots/gone.png": b"old"}
    new = {"metrics.json": b"new", "README.md": b"new", "plots/came.png": b"new"}

    def act() -> None:
        stage = folder / update.WORKPLACE / "new"
        for name, text in new.items():
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            (stage / name).write_bytes(text)
        update._swap(stage, folder, {"plots/gone.png"})
        (folder / update.WORKPLACE / update.PLAN).unlink()
        update.undo(folder)

    def check(at: int) -> None:
        update.undo(folder)
        assert content(folder) in (old, new), f"operation {at}: {content(folder)}"

    return kill_everywhere(lambda: fill(folder, old), act, check, which, lambda: state(folder))


def training_scenario(folder: Path, which: slice) -> int:
    """A training: the same log, weights and files, bit for bit."""
    import torch
    import yaml

    from modeling_trm.commands import train
    from modeling_trm.training import final  # noqa: F401 (here once, not in every process)

    torch.set_num_threads(1)
    recipe = folder / "recipe.yaml"
    fill(folder, {})
    recipe.write_text(yaml.safe_dump(TINY_RECIPE), encoding="utf-8")

    def run(where: Path) -> None:
        assert train.main([str(recipe), "--output_dir", str(where)]) == 0

    def outcome(where: Path) -> dict[str, Any]:
        files = content(where)
        weights = {name: text for name, text in files.items() if name.startswith("weights") and "safetensors" in name}
        log = [timeless(json.loads(line)) for line in files["log.jsonl"].decode().splitlines()]
        return {"log": log, "weights": weights, "names": sorted(name for name in files if "trackers" not in name)}

    return again_scenario(folder, which, lambda where: None, run, outcome)


def evaluation_scenario(folder: Path, which: slice) -> int:
    """An evaluation that updates its checkpoint's card: figures, plots and card; the card is never half of each."""
    from modeling_trm.cards.card import render_card
    from modeling_trm.cards.update import finish_update
    from modeling_trm.commands import evaluate

    made = make_checkpoint(folder)

    def run(where: Path) -> None:
        given = ["--model", str(where / "model"), "--data", str(folder / "puzzles.csv"), "--output", str(where / "out")]
        assert evaluate.main([*given, "--max-steps", "2", "--device", "cpu", "--update-card"]) == 0

    def outcome(where: Path) -> dict[str, Any]:
        return figures_of(where)

    def is_whole(where: Path) -> None:
        finish_update(where / "model")
        metrics = json.loads((where / "model" / "metrics.json").read_text())
        assert (where / "model" / "README.md").read_text() == render_card(where / "model", metrics)

    return again_scenario(folder, which, lambda where: copy(made, where / "model"), run, outcome, is_whole)


def votes_scenario(folder: Path, which: slice) -> int:
    """An evaluation by voting: the same votes, report and plots."""
    from modeling_trm.commands import vote

    made = make_checkpoint(folder)

    def run(where: Path) -> None:
        given = ["--model", str(made), "--data", str(folder / "puzzles.csv"), "--output", str(where)]
        assert vote.main([*given, "--max-steps", "2", "--device", "cpu", "--views", "3"]) == 0

    return again_scenario(folder, which, lambda where: None, run, figures_of)


def model_scenario(folder: Path, which: slice) -> int:
    """A model folder that replaces an earlier one: weights, table, processor and code."""
    from modeling_trm.training.run_folder import save_model
    from modeling_trm.utils.loading import load_model, load_processor

    made = make_checkpoint(folder)
    model, processor, old = load_model(str(made)), load_processor(str(made)), folder / "old"

    def run(where: Path) -> None:
        save_model(model, processor, where / "model")

    def is_whole(where: Path) -> None:
        there = [one for one in (where / "model", where / ".model.trm-old") if one.exists()]
        assert any(content(one) == content(old / "model") for one in there), os.listdir(where)

    run(old)
    return again_scenario(folder, which, lambda where: copy(old, where), run, content, is_whole)


def chunks_scenario(folder: Path, which: slice) -> int:
    """A long evaluation in chunks: chunks that are there are whole, and not run again."""
    import numpy as np

    from modeling_trm.evaluation.chunks import SECONDS, run_in_chunks

    def square(numbers: Any) -> dict[str, Any]:
        return {"square": numbers**2}

    def run(where: Path) -> None:
        found = run_in_chunks(square, 10, where, {"what": "squares"}, chunk_size=3, title="", progress=False)
        assert np.array_equal(found["square"], np.arange(10) ** 2)

    def outcome(where: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in sorted(where.iterdir()):
            if path.suffix == ".npz":
                with np.load(path) as arrays:
                    found[path.name] = {name: arrays[name].tolist() for name in arrays if name != SECONDS}
            else:
                found[path.name] = path.read_text()
        return found

    fill(folder, {})
    return again_scenario(folder, which, lambda where: None, run, outcome)


def arc_scenario(folder: Path, which: slice) -> int:
    """An ARC data set that replaces an earlier one: the same files, and it loads."""
    from datasets_builders.arc_build import build_arc
    from datasets_builders.arc_folder import load_arc_folder, write_arc_folder
    from datasets_builders.arc_set import ArcOptions
    from datasets_builders.arc_tasks import parse_task

    pair = {"input": [[0, 1], [2, 3]], "output": [[1, 0]]}
    tasks = [parse_task({"train": [pair], "test": [pair]}, "t1", "evaluation", "here")]
    options = ArcOptions(subsets=("evaluation",), num_augmentations=2, validation_tasks=0, on_leak="report")
    arc_set = build_arc({"evaluation": tasks}, options)

    def run(where: Path) -> None:
        write_arc_folder(arc_set, where / "set", overwrite=True)
        assert load_arc_folder(where / "set").fingerprint == arc_set.fingerprint

    fill(folder, {})
    run(folder / "built")
    return again_scenario(folder, which, lambda where: copy(folder / "built", where), run, content)


def build_scenario(folder: Path, which: slice) -> int:
    """A data set that replaces an earlier one: the same files, nothing beside them."""
    from modeling_trm.commands import build_data

    puzzles = write_puzzles(folder)

    def run(where: Path) -> None:
        given = ["sudoku", "--data-files", f"train={puzzles}", "--output", str(where / "set"), "--overwrite"]
        assert build_data.main([*given, "--grid-shape", "4", "4"]) == 0

    def is_whole(where: Path) -> None:
        from modeling_trm.utils.manifest import find_damage

        there = [one for one in (where / "set", where / ".set.trm-old") if one.exists()]
        assert any(find_damage(one) is None for one in there), os.listdir(where)

    built = folder / "built"
    run(built)
    return again_scenario(folder, which, lambda where: copy(built, where), run, content, is_whole)


def upload_scenario(folder: Path, which: slice) -> int:
    """Publishing: the Hub holds nothing of it or all of it, and the same command ends with all."""
    from huggingface_hub import close_session, constants, get_session

    from modeling_trm.commands import build_data, publish
    from tests.hub.fake_hub import FakeHub
    from tests.hub.hub_api import WRITE_TOKEN

    built, hub = folder / "built", FakeHub()
    given = ["sudoku", "--data-files", f"train={write_puzzles(folder)}", "--output", str(built)]
    assert build_data.main([*given, "--grid-shape", "4", "4"]) == 0
    constants.ENDPOINT, constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET = hub.url, False, True
    os.environ["HF_TOKEN"] = WRITE_TOKEN

    client = type(get_session())
    client.send = audited(client.send)  # killed before every request, too

    def run() -> None:
        assert publish.main([str(built), "org/set"]) == 0

    def files() -> dict[str, bytes]:
        return dict(hub.files("org/set", "dataset")) if hub.store.repositories else {}

    run()
    whole = files()
    close_session()  # a connection must not be shared with the processes to come

    def check(at: int) -> None:
        assert files() in ({}, whole), f"operation {at}: the Hub holds {sorted(files())}"
        run_to_end(run)
        assert files() == whole, f"operation {at}: the Hub holds {sorted(files())}"
        assert content(built) == before, f"operation {at}: the folder has changed"

    before = content(built)
    try:
        return kill_everywhere(hub.store.repositories.clear, run, check, which, count().__next__)
    finally:
        hub.close()


def again_scenario(
    folder: Path,
    which: slice,
    begin: Callable[[Path], None],
    run: Callable[[Path], None],
    outcome: Callable[[Path], Any],
    check_killed: Callable[[Path], None] = lambda where: None,
) -> int:
    """A command that is killed and given again leaves what one leaves that was left alone.

    Args:
        begin: what lies in its folder before. run: the command. outcome: what it leaves, without what a clock decides.
        check_killed: what must hold before it is given again.
    """
    where = folder / "where"  # the same for all: some names are written down

    def prepare() -> None:
        shutil.rmtree(where, ignore_errors=True)
        begin(where)

    def check(at: int) -> None:
        try:
            check_killed(where)
            run_to_end(lambda: run(where))
            assert outcome(where) == expected, f"differs: {differing(outcome(where), expected)}"
        except AssertionError as error:
            raise AssertionError(f"operation {at}: {str(error)[:300]}") from error

    prepare()
    import_what_is_imported(lambda: run(where))
    expected = outcome(where)
    return kill_everywhere(prepare, lambda: run(where), check, which, lambda: state(where))


def differing(found: Any, expected: Any) -> list[str]:
    """The names under which two outcomes say different things, or have different names."""
    if isinstance(found, list) and isinstance(expected, list):
        return sorted(map(str, set(map(str, found)) ^ set(map(str, expected)))) or ["the order"]
    names = found.keys() | expected.keys()
    wrong = sorted(name for name in names if found.get(name) != expected.get(name))
    inner = [differing(found[name], expected[name]) for name in wrong if isinstance(expected.get(name), dict | list)]
    return [*wrong, *(one for part in inner for one in part)]


def figures_of(folder: Path) -> dict[str, Any]:
    """All files; of JSON what it says, of cards that they are there: they tell seconds."""
    found: dict[str, Any] = dict(content(folder))
    for name, text in found.items():
        if name.endswith(".json"):
            found[name] = timeless(json.loads(text))
        elif name.endswith(".md"):
            found[name] = "there"
    return found


def timeless(value: Any) -> Any:
    """Without what a clock decides."""
    if isinstance(value, dict):
        return {name: timeless(one) for name, one in value.items() if name not in TIMES}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def make_checkpoint(folder: Path) -> Path:
    """A checkpoint with a card, and puzzles.csv beside it."""
    import torch

    from modeling_trm import GridProcessor, TRMConfig, TRMForGridReasoning
    from modeling_trm.cards.card import write_model_card

    torch.set_num_threads(1)
    torch.manual_seed(0)
    write_puzzles(folder)
    processor = GridProcessor("sudoku", grid_shape=(4, 4))
    sizes = {name: TINY_RECIPE[name] for name in ("block_operators", "hidden_size", "mlp_multiple_of", "H_cycles")}
    config = TRMConfig(**sizes, L_cycles=1, puzzle_prefix_len=1, seq_len=16, vocab_size=processor.vocab_size)
    TRMForGridReasoning(config).save_pretrained(folder / "made")
    processor.save_pretrained(folder / "made")
    write_model_card(folder / "made", {"evaluations": {}})
    return folder / "made"


def write_puzzles(folder: Path) -> Path:
    """puzzles.csv in the folder, which is emptied."""
    fill(folder, {})
    with (folder / "puzzles.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("answer", "question"), *PUZZLES])
    return folder / "puzzles.csv"


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target)


SCENARIOS = {
    "file": file_scenario,
    "folder": folder_scenario,
    "card": card_scenario,
    "training": training_scenario,
    "evaluation": evaluation_scenario,
    "votes": votes_scenario,
    "build": build_scenario,
    "arc": arc_scenario,
    "model": model_scenario,
    "chunks": chunks_scenario,
    "upload": upload_scenario,
}
