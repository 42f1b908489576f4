"""onnxruntime-web, the program that runs ONNX in a browser: one version, whose files are known by their SHA-256.

It comes from the npm registry through `npm pack`, once, and is kept in the user's cache; or from a folder.
"""

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from ..utils.files import write_bytes

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
# What the page runs it by: the module that it imports, and the program that this runs. The one for a GPU (WebGPU) has
# the processor's as well, but is twice as large.
PROGRAMS = {
    "processor": ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.wasm"),
    "gpu": ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
}
FILES = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.webgpu.min.mjs": "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
    "ort-wasm-simd-threaded.asyncify.mjs": "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}


class RuntimeFilesError(ValueError):
    """The runtime cannot be had, or is another one; the message is one line and says what to do."""


def cache_folder() -> Path:
    """Where the files are kept: below XDG_CACHE_HOME, by default ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modeling_trm" / PACKAGE


def runtime_files(folder: Path | None = None) -> dict[str, bytes]:
    """The runtime's files by name, of this folder (the package's `dist`), of the cache, or from npm.

    Raises:
        RuntimeFilesError: a file is missing or is not that of VERSION; npm is missing or fails.
    """
    if folder is not None:
        return _read(folder)
    cache = cache_folder()
    if not all((cache / name).is_file() for name in FILES):
        for name, content in _download().items():
            write_bytes(cache / name, content)
    return _read(cache)


def _read(folder: Path) -> dict[str, bytes]:
    for name in FILES:
        if not (folder / name).is_file():
            raise RuntimeFilesError(f"{folder}: has no {name}; give the folder `dist` of the npm package {PACKAGE}")
    files = {name: (folder / name).read_bytes() for name in FILES}
    _check(files, str(folder))
    return files


def _download() -> dict[str, bytes]:
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeFilesError(
            f"npm was not found, and {PACKAGE} comes from its registry; install Node.js, which brings npm, or give "
            f"--runtime DIR, the folder `dist` of that package"
        )
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([npm, "pack", PACKAGE, "--silent"], cwd=folder, capture_output=True, text=True)
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode != 0 or not archives:
            reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise RuntimeFilesError(f"`npm pack {PACKAGE}` failed: {reason}")
        with tarfile.open(archives[0]) as archive:
            members = {name: archive.extractfile(f"package/dist/{name}") for name in FILES}
            files = {name: member.read() for name, member in members.items() if member is not None}
    _check(files, "npm's package")
    return files


def _check(files: dict[str, bytes], where: str) -> None:
    for name, expected in FILES.items():
        if hashlib.sha256(files[name]).hexdigest() != expected:
            raise RuntimeFilesError(
                f"{where}: {name} is not that of {PACKAGE} (another SHA-256); remove it, or give --runtime DIR, the "
                f"folder `dist` of that package"
            )
