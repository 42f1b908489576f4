"""Malformed inputs by kind: each is accepted, or refused on one line by an error that users are shown.

Everything is drawn by a seed, so that a wrong case comes again: `Case.name` has its kind and number.
"""

import gzip
import io
import json
import random
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub.errors import StrictDataclassError

from datasets_builders.arc_tasks import read_challenges
from datasets_builders.features import load_puzzles
from modeling_trm import GridProcessor, ReasoningConfig, TRMConfig
from modeling_trm.metrics.pass_at_k.ranking import pass_at_k
from modeling_trm.puzzle_input_trm import read_puzzle
from modeling_trm.training.arguments import FIELDS, parse_recipe
from modeling_trm.training.recipes import SHIPPED
from modeling_trm.utils.manifest import MANIFEST, find_damage, write_manifest
from modeling_trm.utils.outputs import new_folder
from modeling_trm.voting.folder import CHECKSUM, IDENTITY, checksum, read_manifest

REFUSED = (ValueError, TypeError, OSError)  # what a command or the documented interface shows as one line
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 2**80, 1.5, float("nan"), float("inf"), "", "x", "Ü\x00", [], [[]], {}, {"a": 1}, b"1",
)  # fmt: skip


class Case(NamedTuple):
    """One input. must_refuse: being accepted is wrong."""

    name: str
    run: Callable[[], Any]
    must_refuse: bool = False


def judge(case: Case) -> str | None:
    """What is wrong: a traceback where a line is due, several lines, or something accepted; None if nothing is."""
    try:
        case.run()
    except REFUSED as error:
        text = str(error)
        unclear = isinstance(error, TypeError) and "there is no option" not in text
        several = "\n" in text.strip() and "rows are bad" not in text  # of bad rows each has its line
        return f"{case.name}: {type(error).__name__}: {text!r}" if unclear or several else None
    except Exception as error:  # noqa: BLE001 (every other one is what is searched for)
        return f"{case.name}: {type(error).__name__}: {error}"
    return f"{case.name}: accepted" if case.must_refuse else None


def spoilt(draw: random.Random, content: bytes, by: bytes) -> bytes:
    """The content with bytes changed, taken out or doubled."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(changed))
        changed[at : at + draw.choice([0, 1, 5])] = bytes(draw.choices(by, k=draw.randint(0, 3)))
    return bytes(changed)


def numbers(draw: random.Random) -> Iterator[Case]:
    """Fields of a recipe with a value of another kind."""
    names = list(FIELDS)
    for number in count():
        name, value = draw.choice(names), draw.choice(["nan", "-inf", "-1", "1e400", "2", "", "[", "{a: ", "null", "ü"])
        is_number = FIELDS[name].type in (int, float)
        yield Case(
            f"number {number} --{name} {value}",
            lambda name=name, value=value: parse_recipe([f"--{name}={value}"]),
            must_refuse=is_number and value in ("nan", "-inf", "1e400", "", "[", "{a: ", "ü"),
        )


def recipes(draw: random.Random, folder: Path) -> Iterator[Case]:
    """Shipped recipes, spoilt."""
    sources = sorted(SHIPPED.glob("*.yaml"))
    path = folder / "recipe.yaml"
    for number in count():
        content = spoilt(draw, draw.choice(sources).read_bytes(), b"\x00\xff:[]{}\"'\t\n-!&*0a")

        def run(content: bytes = content) -> None:
            path.write_bytes(content)
            parse_recipe([str(path)])

        yield Case(f"recipe {number}: {content[:60]!r}", run)


def votes(draw: random.Random) -> Iterator[Case]:
    """Arguments of the metric of other types, at any depth."""
    for number in count():
        arguments: dict[str, Any] = {
            "predictions": [["01", "10", None]],
            "references": ["10"],
            "task_ids": ["a"],
            "scores": [[0.9, 0.2, 0.1]],
            "k": [1],
        }
        name, value = draw.choice(list(arguments)), draw.choice(ODD)
        where = draw.choice(["all", "entry", "within"])
        if where == "all" or name == "k":
            arguments[name] = value
        elif where == "entry" or not isinstance(arguments[name][0], list):
            arguments[name] = [value]
        else:
            arguments[name][0][0] = value
        yield Case(f"votes {number}: {name} {where} {value!r}", lambda arguments=arguments: pass_at_k(**arguments))


def manifests(draw: random.Random, folder: Path) -> Iterator[Case]:
    """manifest.json of votes, a field changed: it no longer fits its checksum, or its type is not allowed."""
    whole: dict[str, Any] = dict.fromkeys(IDENTITY, "x") | {
        "format": 1,
        "num_views": 2,
        "num_items": 8,
        "chunk_size": 4,
        "max_steps": 4,
    }
    whole[CHECKSUM] = checksum(whole)
    path = folder / "manifest.json"
    for number in count():
        changed = dict(whole)
        field = draw.choice(IDENTITY)
        changed[field] = draw.choice([odd for odd in ODD if not isinstance(odd, bytes) and odd != whole[field]])
        text = draw.choice(
            [json.dumps(changed), json.dumps(changed)[:-9], json.dumps(draw.choice(ODD[:10])), "[" * 9999]
        )

        def run(text: str = text) -> None:
            path.write_text(text, encoding="utf-8")
            read_manifest(folder)

        yield Case(f"manifest {number}: {text[:60]}", run, must_refuse=True)


def puzzles(draw: random.Random) -> Iterator[Case]:
    """What is given as a Sudoku."""
    processor = GridProcessor("sudoku")
    for number in count():
        text = "".join(draw.choices(".0123456789-x \n|Ü\x00", k=draw.choice([0, 1, 80, 81, 82, 89])))
        value = draw.choice([text, [text], [list(text)], {"question": text}, draw.choice(ODD)])
        yield Case(f"puzzle {number}: {value!r}", lambda value=value: read_puzzle(value, processor, None))


def reasoning(draw: random.Random) -> Iterator[Case]:
    """Fields of a ReasoningConfig."""
    names = list(ReasoningConfig.__dataclass_fields__)
    for number in count():
        name, value = draw.choice(names), draw.choice(ODD)
        yield Case(f"reasoning {number}: {name}={value!r}", lambda n=name, v=value: ReasoningConfig().updated(**{n: v}))


def flipped(draw: random.Random, folder: Path) -> Iterator[Case]:
    """One bit of one file of a folder with a manifest: it is seen, and the file named."""
    folder = folder / "checkpoint"
    folder.mkdir()
    for name in ("model.bin", "state.bin", "progress.json"):
        (folder / name).write_bytes(bytes(draw.choices(range(256), k=2000)))
    write_manifest(folder)
    names = sorted(path.name for path in folder.iterdir())

    def run(name: str, at: int) -> None:
        before = (folder / name).read_bytes()
        content = bytearray(before)
        content[at % len(content)] ^= 1 << (at % 8)
        (folder / name).write_bytes(content)
        problem = find_damage(folder)
        (folder / name).write_bytes(before)
        if problem is not None and (name == MANIFEST or name in problem):
            raise ValueError(problem)

    for number in count():
        name, at = draw.choice(names), draw.randrange(10**6)
        harmless = name == MANIFEST  # a bit of white space may change
        yield Case(f"bit {number} of {name}, {at}", lambda n=name, a=at: run(n, a), must_refuse=not harmless)


def tables(draw: random.Random, folder: Path) -> Iterator[Case]:
    """Files of puzzles with bytes changed, taken out or doubled, whatever form they have; and columns of odd types."""
    import pyarrow as pa
    from pyarrow import parquet

    answer, question = "1234341221434321", "1.34.41.2.4343.1"
    rows = [{"question": question, "answer": answer, "rating": 3, "source": "x"}] * 3
    memory = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), memory)
    csv = "question,answer,rating,source\n" + f"{question},{answer},3,x\n" * 3
    lines = "\n".join(map(json.dumps, rows))
    forms = [csv.encode(), csv.encode("utf-16"), json.dumps(rows).encode(), lines.encode(), memory.getvalue()]
    forms += [gzip.compress(form, mtime=0) for form in forms]
    path = folder / "puzzles"
    for number in count():
        content = spoilt(draw, draw.choice(forms), b"\x00\xff,;\"'[]{}\n\r .09x")

        def run(content: bytes = content) -> None:
            path.write_bytes(content)
            load_puzzles("sudoku", "test", data_files=path)

        yield Case(f"table {number}: {content[:60]!r}", run)


def tasks(draw: random.Random, folder: Path) -> Iterator[Case]:
    """ARC tasks in JSON with a value of another type at any depth."""
    path = folder / "tasks.json"
    for number in count():
        pair: dict[str, Any] = {"input": [[0, 1], [2, 3]], "output": [[1, 0]]}
        content: Any = {"t1": {"train": [pair], "test": [dict(pair)]}}
        value = draw.choice([odd for odd in ODD if not isinstance(odd, bytes)])
        place: Any = content
        for _ in range(draw.randint(0, 6)):
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw.choice(keys)
            if not isinstance(place[key], dict | list) or draw.random() < 0.3:
                break
            place = place[key]
        place[draw.choice(list(place) if isinstance(place, dict) else range(len(place)))] = value
        text = json.dumps(content)[: draw.choice([None, None, None, -1, 9])]

        def run(text: str = text) -> None:
            path.write_text(text, encoding="utf-8")
            read_challenges(path)

        yield Case(f"tasks {number}: {text[:70]}", run)


def configs(draw: random.Random) -> Iterator[Case]:
    """Fields of a model's architecture, and of a processor."""
    names = [name for name in TRMConfig.__annotations__ if not name.startswith("_")]
    sizes = {"vocab_size": 11, "seq_len": 81}
    of_processor = ("task", "grid_shape", "alphabet")
    for number in count():
        value = draw.choice(ODD)
        if draw.random() < 0.2:
            fields = {"task": "grid", "grid_shape": (2, 2), "alphabet": ".1"} | {draw.choice(of_processor): value}
            yield Case(f"config {number}, processor: {fields}", lambda fields=fields: GridProcessor(**fields))
        else:
            name = draw.choice(names)

            def run(name: str = name, value: Any = value) -> None:
                try:
                    TRMConfig(**sizes | {name: value})
                except StrictDataclassError as error:
                    raise ValueError(" ".join(str(error).split())) from error  # as commands show it

            yield Case(f"config {number}: {name}={value!r}", run)


def outputs(draw: random.Random, folder: Path) -> Iterator[Case]:
    """Where a data set may be put: nothing that is there and not ours is changed, whatever is said."""
    home = folder / "home"
    places = [
        "mine",
        "mine/thesis.txt",
        "mine/link",
        "mine/dangling",
        ".",
        "..",
        "/",
        "/dev/null",
        "/dev/null/x",
        "mine/set",
    ]
    for number in count():
        place, overwrite, others = draw.choice(places), draw.random() < 0.7, draw.random() < 0.5

        def run(place: str = place, overwrite: bool = overwrite, others: bool = others) -> None:
            shutil.rmtree(home, ignore_errors=True)
            (home / "mine").mkdir(parents=True)
            (home / "mine" / "thesis.txt").write_text("years of work")
            (home / "mine" / "link").symlink_to(home / "mine")
            (home / "mine" / "dangling").symlink_to(home / "nowhere" / "x")
            with new_folder(home / "mine" / "set", overwrite=False) as new:
                (new / "a").write_text("old")
            if others:
                (home / "mine" / "set" / "notes.txt").write_text("mine")
            try:
                with new_folder(home / place, overwrite) as new:
                    (new / "a").write_text("new")
            finally:
                kept = (home / "mine" / "thesis.txt").read_text() == "years of work"
                kept = kept and (not others or (home / "mine" / "set" / "notes.txt").read_text() == "mine")
                if not kept:
                    raise AssertionError("something of the user's is lost")

        yield Case(f"output {number}: {place}, overwrite={overwrite}, others={others}", run)


def cases(seed: int, each: int, folder: Path) -> Iterator[Case]:
    """So many of each kind."""
    draw = random.Random(seed)
    for kind in (
        numbers(draw), recipes(draw, folder), votes(draw), manifests(draw, folder), puzzles(draw), reasoning(draw),
        flipped(draw, folder), tables(draw, folder), tasks(draw, folder), configs(draw), outputs(draw, folder),
    ):  # fmt: skip
        for _ in range(each):
            yield next(kind)
