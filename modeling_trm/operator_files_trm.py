"""Files with operators of a user's own: read into this process, and sent along with a checkpoint.

Such a file registers its classes, `OPERATORS["name"] = Class`, and imports from the package by file, as in
`from modeling_trm.operators_trm import OPERATORS`. In a checkpoint's folder it is NAME_trm.py, with these imports as
transformers' loader of remote code follows them, from its siblings there.
"""

import ast
import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from transformers.utils import cached_file, logging

from .operators_trm import BUILT_IN, OPERATORS, check_operator

PACKAGE = "modeling_trm"
SIBLINGS = Path(__file__).parent
OF_PACKAGE = re.compile(rf"^(\s*from\s+){PACKAGE}(?=\.\w+\s+import\b)", re.MULTILINE)
HOOK = SIBLINGS / "own_operators_trm.py"
INSTALLED = {"site-packages", "dist-packages"}  # the folders of libraries

logger = logging.get_logger(__name__)


def import_operators(file: str | Path) -> ModuleType:
    """Execute a file of operators as a module of this package, so that a copy from a checkpoint's folder can be read.

    Raises:
        ValueError: a file that could not travel with a checkpoint, with the line; or the error that it raised; or one
            that takes a name that the package or another file has, with both. Nothing of it stays registered then.
        OSError: it cannot be read.
    """
    path = Path(file)
    code = _portable_code(path, _relative(path))
    name = f"{__package__}.{_name_in_folder(path).removesuffix('.py')}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file")
    before, earlier = dict(OPERATORS), sys.modules.get(name)
    if earlier is not None:
        _check_alike(f"the module {name}", path, code, Path(str(earlier.__file__)))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        _execute(spec.loader, module, path)
        fresh = [key for key, cls in OPERATORS.items() if cls is not before.get(key)]
        for operator in fresh:
            check_operator(operator, OPERATORS[operator])
            other = None if operator not in before else _file_of(before[operator])
            if other is not None:
                _check_alike(f"operator {operator!r}", path, code, other)
        own_code(fresh)  # read now: the file may be edited before the model is saved
    except ValueError:
        OPERATORS.clear()
        OPERATORS.update(before)
        sys.modules.pop(name)
        if earlier is not None:
            sys.modules[name] = earlier
        raise
    return module


def _execute(loader: Any, module: ModuleType, path: Path) -> None:
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error


def _check_alike(what: str, path: Path, code: str, other: Path) -> None:
    """Raise ValueError where another file has said already what this is; the same one may be read again, or a copy."""
    if path.resolve() != other.resolve() and not _same(code, _relative(other)):
        raise ValueError(
            f"{path} and {other} both say what {what} is, and their code differs: a checkpoint could not tell which is "
            f"its own; import one of them, or rename"
        )


def write_operators(classes: Mapping[str, Any], folder: str | Path) -> None:
    """Put the files of those {name: class} that are a user's own into a checkpoint's folder.

    A class whose code cannot travel is warned of: the weights are written all the same.
    """
    imports: list[str] = []
    entries: list[str] = []
    written: dict[str, str] = {}
    for name, cls in classes.items():
        path = _file_of(cls)
        if path is not None and path.parent == SIBLINGS:
            continue  # the package's, or a checkpoint's own, which transformers copies
        try:
            if path is None or cls.__qualname__ != cls.__name__:
                raise ValueError(f"{cls.__qualname__} of {cls.__module__} is not at the top level of a file to import")
            module = _name_in_folder(path).removesuffix(".py")
            code = _portable_code(path, code_of(cls))
            if written.setdefault(module, code) != code:
                raise ValueError(f"{path} has the name of another file that goes along; give it another one")
        except (OSError, ValueError) as error:
            logger.warning(f"the code of operator {name!r} does not go along with {folder}: {error}")
            continue
        (Path(folder) / f"{module}.py").write_text(code, encoding="utf-8")
        imports.append(f"from .{module} import {cls.__name__} as operator_{len(entries)}")
        entries.append(f"    {name!r}: operator_{len(entries)},")
    if entries:
        title = '"""The operators that this checkpoint brings along, by name."""'
        lines = [title, "", *imports, "", "OWN_OPERATORS = {", *entries, "}", ""]
        (Path(folder) / HOOK.name).write_text("\n".join(lines), encoding="utf-8")


def operator_files(folder: str | Path) -> list[str]:
    """The names of the files with operators of a user's own in a checkpoint's folder, as write_operators put them."""
    return list(dict.fromkeys(file for file, _ in _brought(Path(folder) / HOOK.name).values()))


def check_operators(checkpoint: Any, names: Iterable[str], download: Mapping[str, Any]) -> None:
    """Raise ValueError where a checkpoint brings other code of these operators than what is registered here.

    Whoever loads it would else run, without a word, what it was not trained with: another file of the same name that
    was imported, or the classes of another checkpoint, which transformers takes for both in one process.
    """
    options = {**download, "_raise_exceptions_for_missing_entries": False}
    hook = cached_file(checkpoint, HOOK.name, **options)
    brought = {} if hook is None else _brought(Path(hook))
    for name in brought.keys() & dict.fromkeys(names):
        (file, class_name), cls = brought[name], OPERATORS[name]
        check_operator(name, cls)
        theirs = cached_file(checkpoint, file, **options)
        ours = _file_of(cls)
        is_known = ours is not None and cls.__name__ == class_name
        if theirs is None or (is_known and _same(code_of(cls), _relative(theirs))):
            continue
        raise ValueError(
            f"operator {name!r} is {class_name} of {theirs}, but what is registered here is {cls.__qualname__} of "
            f"{ours or cls.__module__}, other code: load it in a process of its own, and where the package is "
            f"installed import the checkpoint's own file there (--import {theirs})"
        )


def own_code(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """{operator: its file and the SHA-256 of what that says}, of those that are a user's own and in a file."""
    classes = {name: OPERATORS[name] for name in names if name not in BUILT_IN}
    return {
        name: {"file": str(path), "sha256": hashlib.sha256(code_of(cls).encode()).hexdigest()}
        for name, cls in classes.items()
        if (path := _file_of(cls)) is not None
    }


@cache
def code_of(cls: Any) -> str:
    """What the file of a class says, its imports from the package relative; as it was when this was first asked."""
    path = _file_of(cls)
    assert path is not None  # its callers have asked
    return _relative(path)


def _brought(hook: Path) -> dict[str, tuple[str, str]]:
    """{operator: file and class} of what a checkpoint brings along; empty without such a list."""
    text = hook.read_text(encoding="utf-8") if hook.is_file() else ""
    imports = re.findall(r"^from \.(\w+) import (\w+) as (\w+)$", text, re.MULTILINE)
    classes = {short: (f"{module}.py", name) for module, name, short in imports}
    entries = re.findall(r"^    (['\"])(.+)\1: (\w+),$", text, re.MULTILINE)
    return {name: classes[short] for _, name, short in entries if short in classes}


def _file_of(cls: type[Any]) -> Path | None:
    """None for a class of a notebook or of the script that runs, which a loader would run again."""
    file = vars(sys.modules.get(cls.__module__, object)).get("__file__")
    return None if file is None or cls.__module__ == "__main__" else Path(file).resolve()


def _name_in_folder(path: Path) -> str:
    name = path.name if path.stem.endswith("_trm") else f"{path.stem}_trm.py"
    if not name.removesuffix(".py").isidentifier() or path.suffix != ".py":
        raise ValueError(f"{path} cannot be imported: name it NAME.py, of letters, digits and _")
    if (SIBLINGS / name).exists() and path.resolve().parent != SIBLINGS:
        raise ValueError(f"{path} would take the place of the package's {name} in a checkpoint: give it another name")
    return name


def _relative(path: str | Path) -> str:
    return OF_PACKAGE.sub(r"\1", Path(path).read_text(encoding="utf-8"))


def _same(code: str, other: str) -> bool:
    """Whether they do the same, whatever comments and blank lines they have."""
    try:
        return code == other or ast.dump(ast.parse(code)) == ast.dump(ast.parse(other))
    except SyntaxError:  # of a checkpoint that somebody edited
        return False


def _portable_code(path: Path, code: str) -> str:
    """The code of a file as it travels. Raises ValueError where a loader could not follow it."""
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}") from error
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom) and not _loads_from_a_folder(node):
            raise ValueError(
                f"{path}, line {node.lineno}: {ast.unparse(node)!r} would not load from a checkpoint; import from "
                f"installed libraries and the package's files, as in: from {PACKAGE}.operators_trm import OPERATORS"
            )
    return code


def _loads_from_a_folder(node: ast.Import | ast.ImportFrom) -> bool:
    """A sibling among the package's files, or what is installed; not the package, nor a file that stays behind."""
    if isinstance(node, ast.ImportFrom) and node.level:
        return node.level == 1 and node.module is not None and (SIBLINGS / f"{node.module}.py").is_file()
    names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    tops = {str(name).split(".")[0] for name in names}
    return PACKAGE not in tops and all(map(_is_installed, tops))


def _is_installed(top: str) -> bool:
    """Whether others have a module of this name: Python's, or of a library. True where it is not here at all."""
    spec = None if top in sys.stdlib_module_names else importlib.util.find_spec(top)
    if spec is None:
        return True  # an import that may fail, or fails with Python's own words
    places = list(spec.submodule_search_locations or ()) or [str(spec.origin)]
    return any(INSTALLED & set(Path(place).parts) for place in places)
