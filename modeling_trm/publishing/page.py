"""A page's folder as a static Space: the files that `modeling_trm.demo` builds, which the Hub serves as they are."""

from pathlib import Path
from typing import Any

from .contents import Contents, ContentsError, collect, front_matter, parse_file, select

CARD, CONTENTS = "README.md", "demo.json"
PATTERNS = (CARD, CONTENTS, "*.html", "*.css", "*.js", "*.svg", "runtime/*", "models/*/*.packed")


def is_page(folder: Path) -> bool:
    return (folder / CONTENTS).is_file()


def prepare_page(folder: Path) -> Contents:
    """Check the folder and choose its files.

    Raises:
        ContentsError: the card says no `sdk: static`, or a model or the runtime is missing or truncated.
    """
    sdk = front_matter(folder / CARD).get("sdk")
    if sdk != "static":
        raise ContentsError(f"{folder / CARD}: sdk is {sdk!r}; the front matter of a page says 'static'")
    if not (folder / "index.html").is_file():
        raise ContentsError(f"{folder / 'index.html'}: is missing; build the page again")
    files, unlinked = _read(folder / CONTENTS)
    for packed in files:
        file = folder / packed["path"]
        size = file.stat().st_size if file.is_file() else None
        if size != packed["bytes"]:
            raise ContentsError(
                f"{file}: {'is missing' if size is None else f'has {size} bytes'}, but {CONTENTS} says "
                f"{packed['bytes']}; build the page again"
            )
    notes = [
        f"{name} is not linked, for its card names no repository; a model that is given by its id on the Hub is"
        for name in unlinked
    ]
    return collect(folder, "page", "space", select(folder, PATTERNS), notes)


def _read(file: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """{path, bytes} of the runtimes and of each model; the names of models that no repository is known of."""
    try:
        contents = parse_file(file)
        programs, models = contents["runtime"]["programs"].values(), contents["models"]
        packed = [*(program["wasm"] for program in programs), *(model["step"] for model in models)]
        unlinked = [str(model["name"]) for model in models if not model["repository"]]
        return [{"path": str(one["path"]), "bytes": one["bytes"]} for one in packed], unlinked
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ContentsError(f"{file}: is not the contents of a page: {error!r}; build the page again") from error
