"""`import modeling_trm` is light, and whoever uses transformers' Auto classes with it finds ours, in any order."""

import subprocess
import sys
from pathlib import Path

import pytest

import modeling_trm
from tests.forked import run_forked

ROOT = Path(modeling_trm.__file__).parents[1]
FOLDER = str(ROOT / "model_cards" / "tr-mamba2mlpt-sudoku-quickstart")


def test_every_public_name_has_its_file_and_is_imported_when_asked_for():
    assert sorted(modeling_trm._FILE_OF) == sorted(modeling_trm.__all__)
    for name in modeling_trm.__all__:
        assert name in dir(modeling_trm) and getattr(modeling_trm, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'TRMConfg'"):
        modeling_trm.TRMConfg  # noqa: B018


def test_the_import_brings_neither_pytorch_nor_transformers():
    code = "import modeling_trm, sys; assert not {'torch', 'transformers', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


WAYS = (
    f"import modeling_trm; from transformers import AutoModel as A; a = A.from_pretrained({FOLDER!r})",
    f"from transformers import AutoModel as A; import modeling_trm; a = A.from_pretrained({FOLDER!r})",
    f"import modeling_trm; from transformers import AutoProcessor as A; a = A.from_pretrained({FOLDER!r})",
    f"import modeling_trm; from transformers import pipeline; a = pipeline('grid-reasoning', model={FOLDER!r})",
    "from modeling_trm.configuration_trm import TRMConfig as a; assert a._auto_class == 'AutoConfig'",
)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_auto_classes_know_ours(way: str):
    unknown = 'import sys; assert not {"transformers", "modeling_trm"} & sys.modules.keys()'
    done = run_forked("-c", f"{unknown}; {way}; print(getattr(a, '__module__', type(a).__module__))", cwd=ROOT)
    assert done.stdout.startswith("modeling_trm."), done.stderr
