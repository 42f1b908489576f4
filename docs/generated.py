"""The parts of the pages that the code knows: a hook of MkDocs that fills `{{ name }}` on a page when it is built.

Nothing here is typed twice: commands come from their parsers, fields from their dataclasses, recipes from their files,
the house from the arrows that tests/test_architecture.py holds.
"""

import ast
import contextlib
import dataclasses
import html
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the package of this tree, whatever is installed
REFERENCE = "TRM, arXiv 2510.04871"
# Where a field's own words name no paper: the paper of all fields that begin so; the rest is the reference's, or ours.
SOURCES = {
    "mamba_": "Mamba-2, arXiv 2405.21060",
    "delta_": "gated DeltaNet, arXiv 2412.06464",
    "muon_": "Muon, arXiv 2502.16982",
    "rope_": "RoPE, arXiv 2104.09864",
}
OF_THE_REFERENCE = frozenset(
    "vocab_size seq_len num_puzzles puzzle_prefix_len hidden_size block_operators H_cycles L_cycles halt_max_steps "
    "num_attention_heads position_embedding mlp_expansion mlp_multiple_of rms_norm_eps initial_state_std halt_bias "
    "augment train_steps batch_size token_loss halt_loss_weight halt_exploration optimiser learning_rate beta1 beta2 "
    "weight_decay puzzle_lr puzzle_weight_decay lr_schedule warmup_steps lr_min_ratio ema_decay seed".split()
)
OURS = "this project"
PLACEHOLDER = re.compile(r"^\{\{ ([\w ]+) \}\}$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs' event: the page's text with its placeholders filled. Raises KeyError for an unknown one."""
    return PLACEHOLDER.sub(lambda match: PARTS[match[1]](), markdown)


def commands() -> str:
    """Every command's help, as the terminal shows it."""
    from modeling_trm.commands.trm import COMMANDS

    listed = [(name, ()) for name in COMMANDS]
    text = []
    for name, words in [*listed, ("vote", ("report",)), *(("build-data", (task,)) for task in TASKS_BUILT)]:
        title = " ".join(["trm", name, *words])
        text.append(f"## {title}\n\n```text\n{help_of(name, *words).rstrip()}\n```\n")
    return "\n".join(text)


TASKS_BUILT = ("sudoku", "maze", "grid", "arc")


def help_of(name: str, *words: str) -> str:
    """What `trm NAME WORDS --help` prints, 100 characters wide."""
    from modeling_trm.commands.trm import command_module

    printed, before = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            command_module(name).main([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    return printed.getvalue()


def config_fields() -> str:
    from modeling_trm.configuration_trm import TRMConfig

    meanings = argument_meanings(TRMConfig)
    own = [field for field in dataclasses.fields(TRMConfig) if field.name in TRMConfig.__annotations__]
    return field_table([(field, meaning_of(field.name, meanings)) for field in own])


def reasoning_fields() -> str:
    from modeling_trm.reasoning_config_trm import ReasoningConfig

    meanings = argument_meanings(ReasoningConfig)
    return field_table([(field, meaning_of(field.name, meanings)) for field in dataclasses.fields(ReasoningConfig)])


def recipe_fields() -> str:
    """All but those of TRMConfig, which a recipe may say as well."""
    from modeling_trm.configuration_trm import TRMConfig
    from modeling_trm.training.arguments import PARTS as RECIPE_PARTS

    text = []
    for part in RECIPE_PARTS:
        own = [field for field in dataclasses.fields(part) if field.name not in TRMConfig.__annotations__]
        table = field_table([(field, field.metadata["help"]) for field in own])
        title = part.__name__.removesuffix("Arguments")
        text.append(f"### {title}\n\n{str(part.__doc__).splitlines()[0]}\n\n{table}\n")
    return "\n".join(text)


def field_table(rows: list[tuple[Any, str]]) -> str:
    lines = ["| field | default | meaning | source |", "|---|---|---|---|"]
    for field, meaning in rows:
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        shown = "" if default is dataclasses.MISSING else f"`{default}`".replace("`None`", "none")
        lines.append(f"| `{field.name}` | {shown} | {cell(meaning)} | {source_of(field.name, meaning)} |")
    return "\n".join(lines)


def source_of(name: str, meaning: str) -> str:
    """The paper that a field is from."""
    papers = re.findall(r"arXiv\s+\d{4}\.\d{5}", meaning)
    if papers:
        return ", ".join(dict.fromkeys(papers))
    known = (paper for start, paper in SOURCES.items() if name.startswith(start))
    return next(known, REFERENCE if name in OF_THE_REFERENCE else OURS)


def argument_meanings(cls: type) -> dict[str, str]:
    """{argument: meaning} of a docstring's section Args."""
    section = re.search(r"Args:\n(.*?)(?:\n\s*\n|\Z)", str(cls.__doc__), re.DOTALL)
    assert section is not None, cls
    entries = re.split(r"\n(?= {8}\w+: )", "\n" + section[1])
    pairs = (entry.strip().partition(": ") for entry in entries if entry.strip())
    return {name: " ".join(meaning.split()) for name, _, meaning in pairs}


def meaning_of(name: str, meanings: dict[str, str]) -> str:
    """An argument that has no entry of its own is told of in another's."""
    return meanings.get(name) or next(f"see `{other}`" for other, text in meanings.items() if f"`{name}`" in text)


def recipes() -> str:
    from modeling_trm.training.recipes import first_line, shipped_names

    lines = ["| recipe | what it trains |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {cell(first_line(name))} |" for name in shipped_names())])


def presets() -> str:
    from modeling_trm.configuration_trm import PRESETS

    lines = ["| preset | operators | what differs else |", "|---|---|---|"]
    for name, fields in PRESETS.items():
        rest = ", ".join(f"`{key}={value}`" for key, value in fields.items() if key != "block_operators")
        lines.append(f"| `{name}` | {' '.join(fields['block_operators'])} | {rest} |")
    return "\n".join(lines)


def rooms() -> str:
    """Every room, what it is for, and the rooms it imports."""
    lines = ["| room | what | imports |", "|---|---|---|"]
    for room, others in read_rooms().items():
        lines.append(f"| `{room}` | {cell(room_summary(room))} | {', '.join(sorted(map(short, others))) or 'none'} |")
    return "\n".join(lines)


def room_summary(room: str) -> str:
    if room == "flat":
        return "The flat files of `modeling_trm/`, which travel with every checkpoint."
    file = ROOT / room / "__init__.py"
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) if file.is_file() else None
    return (
        str(text).partition("\n")[0] if text else "Thin files over the commands, for `accelerate launch` and `python`."
    )


def short(room: str) -> str:
    return room.removeprefix("modeling_trm/")


def read_rooms() -> dict[str, set[str]]:
    """ROOMS of tests/test_architecture.py, without importing the tests."""
    tree = ast.parse((ROOT / "tests" / "test_architecture.py").read_text(encoding="utf-8"))
    values = (
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROOMS"
    )
    rooms: dict[str, set[str]] = eval(compile(ast.Expression(next(values)), "ROOMS", "eval"), {"set": set})
    return rooms


def house() -> str:
    """The rooms as boxes, each above all that it imports; an arrow that others imply is left out."""
    rooms = read_rooms()
    level: dict[str, int] = {}
    for room, others in rooms.items():
        level[room] = 1 + max((level[other] for other in others), default=-1)
    below = {room: reachable(room, rooms) for room in rooms}
    rows = [[room for room in rooms if level[room] == number] for number in range(max(level.values()) + 1)]
    width, gap, height = 142, 14, 78
    columns = max(map(len, rows))
    full = columns * (width + gap) + gap
    at = {
        room: (
            round((full - len(row) * (width + gap) + gap) / 2) + i * (width + gap),
            (len(rows) - 1 - number) * height + 10,
        )
        for number, row in enumerate(rows)
        for i, room in enumerate(row)
    }
    lines, boxes = [], []
    for room, (x, y) in at.items():
        for other in rooms[room]:
            if not any(other in below[between] for between in rooms[room] - {other}):
                X, Y = at[other]
                lines.append(f'<line x1="{x + width // 2}" y1="{y + 34}" x2="{X + width // 2}" y2="{Y - 2}"/>')
        boxes.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="34" rx="6"/>'
            f'<text x="{x + width // 2}" y="{y + 22}">{html.escape(short(room))}</text>'
        )
    size = f'viewBox="0 0 {full} {len(rows) * height}" role="img" aria-label="rooms and arrows"'
    return f'<svg class="house" xmlns="http://www.w3.org/2000/svg" {size}>{STYLE}{"".join(lines + boxes)}</svg>'


STYLE = (
    "<style>.house line{stroke:gray;marker-end:url(#tip)}"
    ".house rect{fill:var(--md-default-bg-color);stroke:currentColor}"
    ".house text{fill:currentColor;font:14px sans-serif;text-anchor:middle}</style>"
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z" fill="gray"/></marker></defs>'
)


def reachable(room: str, rooms: dict[str, set[str]]) -> set[str]:
    return rooms[room].union(*(reachable(other, rooms) for other in rooms[room]))


def flat_files() -> str:
    """Every flat file and the first line of its docstring."""
    lines = ["| file | what |", "|---|---|"]
    for path, text in modules(ROOT / "modeling_trm"):
        if path.name != "__init__.py":
            lines.append(f"| `{path.name}` | {cell(text.partition(chr(10))[0])} |")
    return "\n".join(lines)


def modules(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.glob("*.py")):
        yield path, str(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))))


def results() -> str:
    """Every evaluation of the shipped checkpoints, and the published figures."""
    from modeling_trm.cards.results_table import results_table

    table = results_table(ROOT / "model_cards", full=True)
    return table.replace("](model_cards/", "](https://github.com/modeling-trm/modeling-trm/blob/main/model_cards/")


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "config fields": config_fields,
    "reasoning fields": reasoning_fields,
    "recipe fields": recipe_fields,
    "recipes": recipes,
    "presets": presets,
    "rooms": rooms,
    "house": house,
    "flat files": flat_files,
    "results": results,
}
