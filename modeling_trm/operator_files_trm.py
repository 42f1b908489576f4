"""Files with operators of a user's own: read into this process, and sent along with a checkpoint.

Such a file registers its classes, `OPERATORS["name"] = Class`, and imports from the package by file, as in
`from modeling_trm.operators_trm import OPERATORS`. In a checkpoint's folder it is NAME_trm.py, with these imports as
transformers' loader of remote code follows them, from its siblings there.
"""

import ast
import importlib.util
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from transformers.utils import logging

PACKAGE = "modeling_trm"
SIBLINGS = Path(__file__).parent
OF_PACKAGE = re.compile(rf"^(\s*from\s+){PACKAGE}(?=\.\w+\s+import\b)", re.MULTILINE)
HOOK = SIBLINGS / "own_operators_trm.py"

logger = logging.get_logger(__name__)


def import_operators(file: str | Path) -> ModuleType:
    """Execute a file of operators as a module of this package, so that a copy from a checkpoint's folder can be read.

    Raises:
        ValueError: a file that could not travel with a checkpoint, with the line; or the error that it raised.
        OSError: it cannot be read.
    """
    path = Path(file)
    _portable_code(path)
    name = f"{__package__}.{_name_in_folder(path).removesuffix('.py')}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ValueError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def write_operators(classes: Mapping[str, type[Any]], folder: str | Path) -> None:
    """Put the files of those {name: class} that are a user's own into a checkpoint's folder.

    A class whose code cannot travel is warned of: the weights are written all the same.
    """
    imports: list[str] = []
    entries: list[str] = []
    for name, cls in classes.items():
        path = _file_of(cls)
        if path is not None and path.parent == SIBLINGS:
            continue  # the package's, or a checkpoint's own, which transformers copies
        try:
            if path is None or cls.__qualname__ != cls.__name__:
                raise ValueError(f"{cls.__qualname__} of {cls.__module__} is not at the top level of a file to import")
            code = _portable_code(path)
        except (OSError, ValueError) as error:
            logger.warning(f"the code of operator {name!r} does not go along with {folder}: {error}")
            continue
        module = _name_in_folder(path).removesuffix(".py")
        (Path(folder) / f"{module}.py").write_text(code, encoding="utf-8")
        imports.append(f"from .{module} import {cls.__name__} as operator_{len(entries)}")
        entries.append(f"    {name!r}: operator_{len(entries)},")
    if entries:
        title = '"""The operators that this checkpoint brings along, by name."""'
        lines = [title, "", *imports, "", "OWN_OPERATORS = {", *entries, "}", ""]
        (Path(folder) / HOOK.name).write_text("\n".join(lines), encoding="utf-8")


def operator_files(folder: str | Path) -> list[str]:
    """The names of the files with operators of a user's own in a checkpoint's folder, as write_operators put them."""
    hook = Path(folder) / HOOK.name
    modules = re.findall(r"^from \.(\w+) import", hook.read_text(encoding="utf-8"), re.MULTILINE)
    return [f"{module}.py" for module in dict.fromkeys(modules)]


def _file_of(cls: type[Any]) -> Path | None:
    """None for a class of a notebook or of the script that runs, which a loader would run again."""
    file = vars(sys.modules[cls.__module__]).get("__file__")
    return None if file is None or cls.__module__ == "__main__" else Path(file).resolve()


def _name_in_folder(path: Path) -> str:
    name = path.name if path.stem.endswith("_trm") else f"{path.stem}_trm.py"
    if not name.removesuffix(".py").isidentifier() or path.suffix != ".py":
        raise ValueError(f"{path} cannot be imported: name it NAME.py, of letters, digits and _")
    if (SIBLINGS / name).exists() and path.resolve().parent != SIBLINGS:
        raise ValueError(f"{path} would take the place of the package's {name} in a checkpoint: give it another name")
    return name


def _portable_code(path: Path) -> str:
    """What the file says, its imports from the package relative. Raises ValueError where a loader could not follow."""
    code = OF_PACKAGE.sub(r"\1", path.read_text(encoding="utf-8"))
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}") from error
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom) and not _loads_from_a_folder(node):
            raise ValueError(
                f"{path}, line {node.lineno}: {ast.unparse(node)!r} would not load from a checkpoint; import from the "
                f"package's files alone, as in: from {PACKAGE}.operators_trm import OPERATORS"
            )
    return code


def _loads_from_a_folder(node: ast.Import | ast.ImportFrom) -> bool:
    """A sibling among the package's files, or anything but the package."""
    if isinstance(node, ast.ImportFrom) and node.level:
        return node.level == 1 and node.module is not None and (SIBLINGS / f"{node.module}.py").is_file()
    names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    return all(str(name).split(".")[0] != PACKAGE for name in names)
