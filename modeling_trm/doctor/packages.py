"""Versions of Python and of the packages against the floors that modeling-trm declares, and what extras would give."""

import platform
import tomllib
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from .findings import Finding

NAME = "modeling-trm"
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
OLDER = "if pip has no build of it for this Python, take an older Python (3.11 and 3.12 are tested)"
# What a package raises that was made for another Python, or whose libraries are missing.
NOT_IMPORTED = (ImportError, AttributeError, SyntaxError, TypeError, ValueError, RuntimeError, OSError)
EXTRAS = {
    "cuda": "compiled Mamba-2 kernels for NVIDIA GPUs; the PyTorch path gives the same results",
    "train": "training curves in TensorBoard; log.jsonl has the figures without it",
    "arc": "ARC-AGI-1 and 2 offline; without it give the official JSON files",
    "onnx": "export to ONNX, and solving with onnxruntime",
}


def check_packages() -> Iterator[Finding]:
    """Python, the package itself, what it requires, and the extras; "dev" is for those who work on it."""
    version = _version(NAME)
    python, requirements, extras = _declared(version is not None)
    yield _against("versions", "Python", platform.python_version(), python, "install a newer Python")
    yield Finding(
        "versions", NAME, version or "not installed: run from a checkout, whose pyproject.toml has the floors"
    )
    modules = _modules()
    for requirement in requirements:
        found = _version(requirement.name)
        todo = f"pip install '{requirement}'"
        problem = None if found is None else _import_problem(modules.get(canonicalize_name(requirement.name), []))
        if found is None:
            yield Finding("versions", requirement.name, "not installed", todo)
        elif problem is not None:
            told = f"{found}, which Python {platform.python_version()} cannot import: {problem}"
            yield Finding("versions", requirement.name, told, f"pip install --force-reinstall '{requirement}'; {OLDER}")
        else:
            yield _against("versions", requirement.name, found, requirement.specifier, todo)
    for extra, gives in EXTRAS.items():
        for requirement in extras.get(extra, []):
            found = _version(requirement.name)
            # A machine without a GPU has no use for the kernels, so that a missing one is no fault: no `todo`.
            missing = f"not installed; pip install '{NAME}[{extra}]' gives {gives}"
            yield Finding("optional", requirement.name, missing if found is None else found)


def _modules() -> dict[str, list[str]]:
    """{package: its modules}, one of the package's own name first; the files of all packages are read for it."""
    found: dict[str, list[str]] = {}
    for module, owners in metadata.packages_distributions().items():
        if module.isidentifier() and not module.startswith("_"):
            for name in map(canonicalize_name, owners):
                found.setdefault(name, []).append(module)
    for package, modules in found.items():
        modules.sort(key=lambda module: canonicalize_name(module) != package)
    return found


def _import_problem(modules: list[str]) -> str | None:
    """Why the first of an installed package's modules cannot be imported, on one line; None where it can."""
    for module in modules[:1]:
        try:
            import_module(module)
        except NOT_IMPORTED as error:
            return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None


def _against(section: str, name: str, found: str, wanted: SpecifierSet, todo: str) -> Finding:
    if not str(wanted):
        return Finding(section, name, found)
    if wanted.contains(found, prereleases=True):
        return Finding(section, name, f"{found} ({wanted})")
    return Finding(section, name, f"{found}, but {wanted} is needed", todo)


def _declared(is_installed: bool) -> tuple[SpecifierSet, list[Requirement], dict[str, list[Requirement]]]:
    """Which Python, which packages and which extras: as installed, or as the checkout's pyproject.toml says."""
    if is_installed:
        about = metadata.metadata(NAME)
        python, declared = about["Requires-Python"], list(map(Requirement, metadata.requires(NAME) or []))
        needed = [one for one in declared if one.marker is None or one.marker.evaluate({"extra": ""})]
        extras = {
            extra: [
                one for one in declared if one not in needed and one.marker and one.marker.evaluate({"extra": extra})
            ]
            for extra in about.get_all("Provides-Extra") or []
        }
    else:
        project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
        python, needed = project["requires-python"], list(map(Requirement, project["dependencies"]))
        extras = {name: list(map(Requirement, lines)) for name, lines in project["optional-dependencies"].items()}
    return SpecifierSet(python), needed, extras


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
