"""The site builds strictly, and what the hook fills in is complete."""

import dataclasses
import importlib.util
import os
import subprocess
import sys

import pytest

from modeling_trm import TRMConfig
from modeling_trm.commands import trm
from modeling_trm.training.arguments import FIELDS
from modeling_trm.training.recipes import shipped_names
from tests.docs.blocks import PAGES, ROOT


@pytest.fixture(scope="module")
def generated():
    spec = importlib.util.spec_from_file_location("docs_generated", ROOT / "docs" / "generated.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path):
    pytest.importorskip("mkdocs")
    build = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    for page in PAGES:
        if page.is_relative_to(ROOT / "docs") and page.parent.name != "images":
            name = page.relative_to(ROOT / "docs").with_suffix("")
            folder = name.parent if name.name == "index" else name
            assert "{{" not in (tmp_path / folder / "index.html").read_text(encoding="utf-8").partition("<article")[2]


def test_every_command_is_on_its_page(generated):
    text = generated.commands()
    for name in trm.COMMANDS:
        assert f"## trm {name}\n" in text
    for option in ("--views", "--on-leak", "--accumulate", "--grid-shape"):
        assert option in text


def test_every_field_has_default_meaning_and_source(generated):
    config, recipe = generated.config_fields(), generated.recipe_fields()
    assert "`hidden_size` | `512`" in config and "arXiv 2601.19085" in config
    assert "`batch_size` | `768`" in recipe
    own = set(TRMConfig.__annotations__) & {field.name for field in dataclasses.fields(TRMConfig)}
    for name in own:
        assert f"| `{name}` |" in config
    for name in set(FIELDS) - own:
        assert f"| `{name}` |" in recipe
    for line in (config + "\n" + generated.reasoning_fields() + "\n" + recipe).splitlines():
        if line.startswith("| `"):
            *_, meaning, source = (part.strip() for part in line.strip("|").replace("\\|", " ").split("|"))
            assert meaning and source, line


def test_names_of_the_reference_are_fields(generated):
    assert set(FIELDS) | set(TRMConfig.__annotations__) >= generated.OF_THE_REFERENCE


def test_the_house_shows_every_room_and_stands_on_its_arrows(generated):
    rooms, drawing, table = generated.read_rooms(), generated.house(), generated.rooms()
    for room in rooms:
        assert f">{generated.short(room)}</text>" in drawing
        assert f"| `{room}` |" in table
    assert drawing.count("<line") < sum(map(len, rooms.values()))  # implied arrows are left out


def test_recipes_and_flat_files_are_listed(generated):
    listed = generated.recipes()
    assert all(f"| `{name}` |" in listed for name in shipped_names())
    assert "`recursion_trm.py` | The recursion" in generated.flat_files()


def test_an_unknown_placeholder_is_an_error(generated):
    with pytest.raises(KeyError, match="nothing"):
        generated.on_page_markdown("{{ nothing }}")
