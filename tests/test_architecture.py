"""The rooms and the arrows between them, read from the imports of every file, and what the tree must not contain.

An arrow is "imports": the flat files of modeling_trm are what a Hub checkpoint carries, so they may import only each
other, in the order below, in the one form that transformers' remote-code loader follows, `from .sibling import Name`.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "modeling_trm"
FLAT = sorted(path for path in PACKAGE.glob("*.py") if path.name != "__init__.py")

# Flat file -> the flat files it may import directly or through those. A new flat file takes its place here.
ARROWS = {
    "grid_sizes_trm": (),
    "registry_trm": (),
    "config_file_trm": ("registry_trm",),
    "configuration_trm": ("grid_sizes_trm", "config_file_trm"),
    "grid_text_trm": (),
    "text_file_trm": (),
    "processing_trm": ("grid_text_trm",),
    "losses_trm": (),
    "randomness_trm": (),
    "augmentation_trm": ("randomness_trm",),
    "puzzle_index_trm": (),
    "puzzle_table_trm": ("puzzle_index_trm",),
    "arc_task_trm": (),
    "arc_augmentation_trm": ("arc_task_trm", "augmentation_trm", "puzzle_index_trm", "randomness_trm"),
    "puzzle_columns_trm": ("grid_text_trm",),
    "puzzle_input_trm": ("processing_trm", "arc_task_trm", "puzzle_columns_trm"),
    "puzzle_tables_trm": ("puzzle_columns_trm", "text_file_trm"),
    "puzzle_files_trm": ("puzzle_input_trm", "puzzle_tables_trm"),
    "views_trm": ("arc_augmentation_trm", "processing_trm"),
    "voting_trm": (),
    "pipeline_trm": ("puzzle_files_trm", "reasoning_config_trm", "verifiers_trm", "views_trm", "voting_trm"),
    "recursion_trm": (),
    "packed_linear_trm": (),
    "memory_trm": (),
    "processor_trm": (),
    "layers_trm": ("configuration_trm",),
    "attention_trm": ("layers_trm", "packed_linear_trm"),
    "symbols_trm": ("layers_trm",),
    "frames_trm": ("configuration_trm",),
    "kernels_trm": ("configuration_trm",),
    "ssd_cuda_trm": (),
    "conv_triton_trm": (),
    "ssd_triton_trm": (),
    "mamba2_trm": ("layers_trm", "packed_linear_trm", "ssd_cuda_trm", "conv_triton_trm", "ssd_triton_trm"),
    "mlp_trm": ("layers_trm", "packed_linear_trm"),
    "mamba3_trm": ("mamba2_trm",),
    "delta_trm": ("mamba2_trm",),
    "conv_mlp_trm": ("mamba2_trm", "mlp_trm"),
    "conv2d_trm": ("layers_trm",),
    "axial_trm": ("layers_trm",),
    "own_operators_trm": (),
    "operators_trm": (
        "frames_trm",
        "attention_trm",
        "mamba2_trm",
        "mamba3_trm",
        "delta_trm",
        "mlp_trm",
        "conv_mlp_trm",
        "conv2d_trm",
        "axial_trm",
        "symbols_trm",
        "own_operators_trm",
    ),
    "operator_files_trm": ("operators_trm",),
    "verifiers_trm": (),
    "trajectories_trm": ("losses_trm", "recursion_trm"),
    "reasoning_config_trm": ("text_file_trm",),
    "engines_trm": (
        "compiling_trm",
        "recursion_trm",
        "layers_trm",
        "memory_trm",
        "packed_linear_trm",
        "processor_trm",
    ),
    "compiling_trm": (),
    "certificates_trm": ("trajectories_trm", "reasoning_config_trm"),
    "reasoning_trm": ("engines_trm", "trajectories_trm", "certificates_trm"),
    "pretrained_trm": (
        "kernels_trm",
        "layers_trm",
        "puzzle_table_trm",
        "reasoning_config_trm",
        "operator_files_trm",
    ),
    "modeling_trm": (
        "operators_trm",
        "recursion_trm",
        "losses_trm",
        "reasoning_trm",
        "pretrained_trm",
        "pipeline_trm",
    ),
}
FLAT_THIRD_PARTY = {"torch", "transformers", "numpy", "huggingface_hub", "safetensors"}
FLAT_OPTIONAL = {"mamba_ssm", "causal_conv1d", "triton", "pyarrow"}  # inside try / except ImportError at module level
# Imported inside a function, since they import what is slow; the loader follows that too.
FLAT_LATE = {"conv_triton_trm", "ssd_triton_trm"}

# Room -> the rooms it imports besides itself, each above its own line: no arrow runs back up. "flat" is modeling_trm's
# flat files and its public names.
ROOMS = {
    "flat": set(),
    "modeling_trm/metrics": set(),
    "model_cards": set(),
    "modeling_trm/utils": {"flat"},
    "datasets_builders": {"flat", "modeling_trm/utils"},
    "modeling_trm/evaluation": {"flat", "datasets_builders", "modeling_trm/utils"},
    "modeling_trm/voting": {
        "flat", "datasets_builders", "modeling_trm/metrics", "modeling_trm/utils", "modeling_trm/evaluation",
    },
    "modeling_trm/comparison": {
        "flat", "modeling_trm/utils", "modeling_trm/evaluation", "modeling_trm/voting",
    },
    "modeling_trm/diagnostics": {"flat", "modeling_trm/utils", "modeling_trm/evaluation"},
    "modeling_trm/cards": {
        "flat", "modeling_trm/utils", "modeling_trm/evaluation", "modeling_trm/voting", "modeling_trm/diagnostics",
    },
    "modeling_trm/training": {
        "flat", "datasets_builders", "modeling_trm/utils", "modeling_trm/evaluation", "modeling_trm/voting",
        "modeling_trm/cards",
    },
    "modeling_trm/experiments": {
        "flat", "datasets_builders", "modeling_trm/utils", "modeling_trm/diagnostics", "modeling_trm/training",
    },
    "modeling_trm/conversion": {"flat", "modeling_trm/utils", "modeling_trm/cards"},
    "modeling_trm/exporting": {"flat", "modeling_trm/utils"},
    "modeling_trm/demo": {
        "flat", "datasets_builders", "modeling_trm/utils", "modeling_trm/cards", "modeling_trm/exporting",
    },
    "modeling_trm/publishing": {"flat", "modeling_trm/utils", "modeling_trm/cards"},
    "modeling_trm/doctor": {"flat", "modeling_trm/utils"},
    "modeling_trm/benchmarking": {
        "flat", "modeling_trm/utils", "modeling_trm/evaluation", "modeling_trm/training", "modeling_trm/conversion",
    },
    "modeling_trm/commands": {
        "flat", "datasets_builders", "modeling_trm/utils", "modeling_trm/evaluation", "modeling_trm/voting",
        "modeling_trm/comparison", "modeling_trm/cards", "modeling_trm/diagnostics", "modeling_trm/training",
        "modeling_trm/experiments", "modeling_trm/conversion", "modeling_trm/exporting", "modeling_trm/publishing",
        "modeling_trm/benchmarking", "modeling_trm/doctor", "modeling_trm/demo",
    },
    "scripts": {"flat", "datasets_builders", "modeling_trm/utils", "modeling_trm/cards", "modeling_trm/commands"},
}  # fmt: skip
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60

TOP_LEVEL = ("modeling_trm", "datasets_builders", "scripts", "model_cards", "docs", "examples", "tests")
PYTHON_FILES = sorted(path for top in TOP_LEVEL for path in (ROOT / top).rglob("*.py") if not path.is_symlink())
TEXT_SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".sh", ".json", ".jsonl", ".cfg", ".csv", ""}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), relative(path))


def imported_modules(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, relative ones resolved to their absolute name, with the line."""
    package = list(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            # `from package import submodule` and `from module import Name` look alike: a file of that name decides.
            for alias in node.names:
                inside = ROOT / Path(*module.split("."), alias.name)
                is_module = inside.is_dir() or inside.with_suffix(".py").is_file()
                yield (f"{module}.{alias.name}" if is_module else module), node.lineno


def room_of(module: str) -> str | None:
    """The room of an absolute module name; None for what is not ours."""
    top, *rest = module.split(".")
    if top == "modeling_trm":
        return f"modeling_trm/{rest[0]}" if rest and (PACKAGE / rest[0]).is_dir() else "flat"
    return top if top in ROOMS else None


def reachable(name: str) -> set[str]:
    return {name}.union(*(reachable(other) for other in ARROWS[name]))


def test_every_flat_file_has_its_place():
    assert {path.stem for path in FLAT} <= ARROWS.keys(), "a new flat file needs a line in ARROWS"


@pytest.mark.parametrize("path", FLAT, ids=relative)
def test_flat_files_import_only_what_a_hub_checkpoint_can_load(path):
    tree = parse(path)
    guarded = {
        id(node)
        for block in tree.body
        if isinstance(block, ast.Try) and any("ImportError" in ast.unparse(h.type) for h in block.handlers if h.type)
        for node in block.body
    }
    at_top = {id(node) for node in tree.body} | guarded
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        where, text = f"{relative(path)}:{node.lineno}", ast.unparse(node)
        if isinstance(node, ast.ImportFrom) and node.level:
            late = node.module in FLAT_LATE
            assert (id(node) in at_top - guarded) != late, f"{where}: {text}: a sibling is imported at module level"
            assert node.level == 1, f"{where}: {text}: only from .sibling"
            assert node.module, f"{where}: {text}: the remote-code loader needs from .sibling import Name"
            assert node.module in reachable(path.stem) - {path.stem}, f"{where}: {text}: against the arrows"
            continue
        names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        for name in (str(name).split(".")[0] for name in names):
            if name in FLAT_OPTIONAL:
                assert id(node) in guarded, f"{where}: {text}: optional, so inside try / except ImportError"
            else:
                assert name in FLAT_THIRD_PARTY | sys.stdlib_module_names, f"{where}: {text}: not allowed in flat files"


@pytest.mark.parametrize("path", FLAT, ids=relative)
def test_flat_files_hold_no_text_that_reads_as_a_relative_import(path):
    """The loader finds imports with a regular expression, in docstrings too."""
    lines = {node.lineno for node in ast.walk(parse(path)) if isinstance(node, ast.ImportFrom)}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if re.match(r"\s*(from\s+\.|import\s+\.)", line):
            assert number in lines, f"{relative(path)}:{number}: {line.strip()!r} stands in a string"


@pytest.mark.parametrize("path", [p for p in PYTHON_FILES if p.parent != PACKAGE], ids=relative)
def test_rooms_import_along_the_arrows(path):
    own = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if own is None:  # tests may import every room
        return
    for module, line in imported_modules(path):
        room = room_of(module)
        where = f"{relative(path)}:{line} imports {module}"
        assert module.split(".")[0] != "tests", f"{where}: nothing imports the tests"
        assert room is None or room == own or room in ROOMS[own], f"{where}: {own} may import {sorted(ROOMS[own])}"
        if own == "datasets_builders" and room == "flat":
            known = {
                "processing_trm", "puzzle_index_trm", "augmentation_trm", "randomness_trm",
                "grid_text_trm", "text_file_trm", "arc_task_trm", "arc_augmentation_trm", "puzzle_columns_trm",
                "puzzle_tables_trm", "losses_trm",
            }  # fmt: skip
            assert module.partition(".")[2] in known, f"{where}: of ours, builders know {sorted(known)} alone"


def test_the_arrows_run_one_way_and_none_is_unused():
    """A room names only rooms above its own line, and only those that one of its files imports."""
    used: dict[str, set[str]] = {room: set() for room in ROOMS}
    for path in PYTHON_FILES:
        own = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        if own not in (None, "flat"):
            used[own] |= {room_of(module) for module, _ in imported_modules(path)} - {own, None}
    order = list(ROOMS)
    for room, others in ROOMS.items():
        assert others <= set(order[: order.index(room)]), f"{room} comes before what it imports"
        assert others == used[room], f"{room} imports {sorted(used[room])}"


def test_the_package_init_imports_no_sub_package():
    """`import modeling_trm` stays light: it opens the flat files only."""
    assert {room_of(module) for module, _ in imported_modules(PACKAGE / "__init__.py")} <= {"flat", None}


@pytest.mark.parametrize("path", PYTHON_FILES, ids=relative)
def test_files_and_functions_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(parse(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{relative(path)}:{node.lineno} {node.name} has {lines} lines"


def text_files() -> Iterator[Path]:
    entries = (path for path in ROOT.iterdir() if path.name != ".git")  # a file in a work tree of git's
    yield from (path for path in entries if path.is_file() and path.suffix in TEXT_SUFFIXES)
    for top in (*TOP_LEVEL, "dev", ".ci", ".github"):
        for path in (ROOT / top).rglob("*"):
            if path.is_file() and path.suffix in TEXT_SUFFIXES and "__pycache__" not in path.parts:
                yield path


def test_no_path_of_a_developers_machine_is_in_the_tree():
    forbidden = re.compile(r"(?<![\w.:/-])/(?:work|opt|home|root|tmp/w)/|\.\./" + r"shared\b")
    own_source = Path(__file__).resolve()
    for path in text_files():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            found = None if path == own_source else forbidden.search(line)
            assert not found, f"{relative(path)}:{number}: {line.strip()[:100]!r}"
