"""The metric's folder as a Space, which is where `evaluate.load("org/name")` looks for org/name/name.py.

The Space is static: it computes nothing, so it is free and needs no server; `evaluate` reads its files. Its page only
says what it is, because `evaluate`'s own widget needs a gradio of years ago.
"""

import html
import re
from pathlib import Path
from typing import Any

from .contents import Contents, ContentsError, collect, front_matter, read_text, select

CARD, PAGE = "README.md", "index.html"
PATTERNS = (CARD, PAGE, "*.py", "requirements.txt", "LICENSE*")
LOAD = re.compile(r'evaluate\.load\("[^"]*"\)')
PAGE_TEXT = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<h1>{title}</h1>
<p>{description}</p>
<pre>import evaluate

metric = evaluate.load("{repository}")</pre>
<p>The metric card is README.md, beside the code.</p>
</html>
"""


def is_metric(folder: Path, card: dict[str, Any]) -> bool:
    """By its card's tags; what it is called is checked later, with an error that says so."""
    tags = card.get("tags")
    return isinstance(tags, list) and "metric" in tags and any(folder.glob("*.py"))


def prepare_metric(folder: Path, repository: str) -> Contents:
    """Check the folder and choose its files.

    Raises:
        ContentsError: the repository or the folder has another name than the metric's file, the card says no `sdk`, or
            `evaluate` cannot load the folder.
    """
    name = repository.split("/")[1]
    if not (folder / f"{name}.py").is_file():
        names = ", ".join(sorted(file.stem for file in folder.glob("*.py") if file.stem != "__init__"))
        raise ContentsError(
            f"{folder}: has no {name}.py; evaluate.load({repository!r}) reads that file, so the repository must have "
            f"the metric's name (here: {names})"
        )
    card = front_matter(folder / CARD)
    if card.get("sdk") != "static":
        raise ContentsError(f"{folder / CARD}: sdk is {card.get('sdk')!r}; the front matter of a metric says 'static'")
    _check_that_it_loads(folder / f"{name}.py")
    files = select(folder, PATTERNS)
    files.pop("__init__.py", None)  # makes the folder a part of the package; evaluate does not read it
    files[CARD] = LOAD.sub(f'evaluate.load("{repository}")', read_text(folder / CARD)).encode("utf-8")
    if PAGE not in files:
        values = {"title": str(card.get("title", name)), "description": str(card.get("description", ""))}
        escaped = {key: html.escape(value) for key, value in values.items()}
        files[PAGE] = PAGE_TEXT.format(repository=repository, **escaped).encode("utf-8")
    return collect(folder, "metric", "space", files)


def _check_that_it_loads(file: Path) -> None:
    import evaluate

    try:
        evaluate.load(str(file))
    except (ImportError, OSError, ValueError, SyntaxError, AttributeError, TypeError) as error:
        raise ContentsError(f"{file}: evaluate cannot load it: {' '.join(str(error).split())}") from error
