"""`import modeling_trm` is light, and whoever uses transformers' Auto classes with it finds ours, in any order."""

import subprocess
import sys
from pathlib import Path

import pytest

import modeling_trm

ROOT = Path(modeling_trm.__file__).parents[1]
FOLDER = str(ROOT / "model_cards" / "tr-mamba2mlpt-sudoku-quickstart")


def run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_public_name_has_its_file_and_is_imported_when_asked_for():
    assert sorted(modeling_trm._FILE_OF) == sorted(modeling_trm.__all__)
    for name in modeling_trm.__all__:
        assert name in dir(modeling_trm) and getattr(modeling_trm, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'TRMConfg'"):
        modeling_trm.TRMConfg  # noqa: B018


def test_the_import_brings_neither_pytorch_nor_transformers():
    assert run("import modeling_trm, sys; print({'torch', 'transformers', 'numpy'} & sys.modules.keys())") == "set()"


# Each in a process of its own, which is forked where what takes longest to import, and is not transformers', is there.
EACH = """
import os, sys
import numpy, sympy, torch, torch._dynamo, torch.distributed.tensor, torch.export
assert not {"transformers", "modeling_trm"} & sys.modules.keys()
for code in sys.argv[1:]:
    sys.stdout.flush()
    process = os.fork()
    if not process:
        exec(code)
        print(getattr(a, "__module__", type(a).__module__))
        sys.exit()
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, code
"""
WAYS = (
    f"import modeling_trm; from transformers import AutoModel as A; a = A.from_pretrained({FOLDER!r})",
    f"from transformers import AutoModel as A; import modeling_trm; a = A.from_pretrained({FOLDER!r})",
    f"import modeling_trm; from transformers import AutoProcessor as A; a = A.from_pretrained({FOLDER!r})",
    f"import modeling_trm; from transformers import pipeline; a = pipeline('grid-reasoning', model={FOLDER!r})",
    "from modeling_trm.configuration_trm import TRMConfig as a; assert a._auto_class == 'AutoConfig'",
)


@pytest.mark.slow
def test_the_auto_classes_know_ours():
    modules = run(EACH, *WAYS).splitlines()
    assert len(modules) == len(WAYS) and all(module.startswith("modeling_trm.") for module in modules), modules
