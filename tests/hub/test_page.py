"""A page as a static Space: what goes, that it is what the folder holds, and folders that are no whole page."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from modeling_trm.cards.card import write_model_card
from modeling_trm.commands import publish as command
from modeling_trm.demo.build import ISOLATION, write_page
from modeling_trm.demo.contents import DemoModel
from modeling_trm.demo.runtime import FILES
from modeling_trm.publishing.contents import ContentsError
from modeling_trm.publishing.hub import publish, read_state
from modeling_trm.publishing.prepare import prepare
from tests.forked import run_forked
from tests.hub.fake_hub import FakeHub

NAME = "org/see-it-think"

ROOT = Path(__file__).parents[2]
# Checkpoints of the Hub are loaded by a process that knows this Hub alone, and the runtime is not what is tested.
WITH_ANOTHER_RUNTIME = """
import sys
from modeling_trm.commands import publish
from modeling_trm.demo import build
from modeling_trm.demo.runtime import FILES
build.runtime_files = lambda _: {name: name.encode() for name in FILES}
sys.exit(publish.main(sys.argv[1:]))
"""

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    facts = {
        "name": "small", "task": "sudoku", "grid_shape": [9, 9], "characters": ".123456789", "parameters": 1,
        "block_operators": ["mlp"], "repository": "org/small",
    }  # fmt: skip
    write_page([DemoModel(facts, b"graph", [])], {name: name.encode() for name in FILES}, tmp_path / "page")
    return tmp_path / "page"


def test_a_page_becomes_a_static_space(
    hub: FakeHub, page: Path, contents_of: Callable[[Path], dict[str, bytes]]
) -> None:
    (page / "notes.txt").write_text("mine", encoding="utf-8")
    contents = prepare(page, NAME)
    assert (contents.kind, contents.repo_type, contents.left_out) == ("page", "space", ("notes.txt",))
    publish(contents, NAME, read_state(NAME, "space", None))
    expected = contents_of(page)
    del expected["notes.txt"]
    assert hub.files(NAME, "space") == expected
    front = yaml.safe_load(hub.files(NAME, "space")["README.md"].decode().split("---")[1])
    assert (front["sdk"], front["app_file"], front["models"]) == ("static", "index.html", ["org/small"])
    assert front["custom_headers"] == ISOLATION
    assert not publish(contents, NAME, read_state(NAME, "space", None)).is_new


@pytest.mark.slow
def test_a_space_of_a_checkpoint_is_built_and_links_it(
    hub: FakeHub, checkpoint: Callable[..., Path], child_environment: dict[str, str], tmp_path: Path
) -> None:
    """Of one on the Hub, with what its card says there."""
    trained = checkpoint(name="trained")
    write_model_card(trained, {"evaluations": {}, "model_name": "From the Hub"})
    assert command.main([str(trained), "org/tiny"]) == 0
    here = child_environment | {"PYTHONPATH": str(ROOT)}
    done = run_forked("-c", WITH_ANOTHER_RUNTIME, "org/tiny", "--space", NAME, cwd=tmp_path, env=here)
    assert done.returncode == 0, done.stderr
    files = hub.files(NAME, "space")
    front = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert (front["sdk"], front["models"]) == ("static", ["org/tiny"])
    (model,) = json.loads(files["demo.json"])["models"]
    assert (model["name"], model["repository"]) == ("From the Hub", "org/tiny")
    assert model["step"]["path"] in files
    assert f"page org/tiny -> space {NAME}" in done.stdout


def test_a_built_page_goes_to_its_space_as_it_is(hub: FakeHub, page: Path, contents_of, capsys) -> None:
    facts = json.loads((page / "demo.json").read_text(encoding="utf-8"))
    facts["models"][0]["repository"] = None
    (page / "demo.json").write_text(json.dumps(facts), encoding="utf-8")
    assert command.main([str(page), "--space", NAME]) == 0
    assert "note: small is not linked" in capsys.readouterr().out
    assert hub.files(NAME, "space") == contents_of(page)


@pytest.mark.parametrize("arguments", [[], ["site"], ["one", "two", "three"]])
def test_what_goes_where_is_asked_for(arguments: list[str], refused) -> None:
    assert f"what goes where is DIR ORG/NAME, or --space ORG/NAME; got {arguments}" in refused(command.main, arguments)


def test_half_a_page_is_refused(page: Path) -> None:
    contents = json.loads((page / "demo.json").read_text(encoding="utf-8"))
    step = page / contents["models"][0]["step"]["path"]
    whole = step.read_bytes()
    step.write_bytes(whole[:-1])
    with pytest.raises(ContentsError, match=rf"{step}: has {len(whole) - 1} bytes, but demo.json says {len(whole)}"):
        prepare(page, NAME)
    step.unlink()
    with pytest.raises(ContentsError, match=rf"{step}: is missing, .* build the page again"):
        prepare(page, NAME)
    (page / "demo.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ContentsError, match="is not the contents of a page"):
        prepare(page, NAME)
    (page / "index.html").unlink()
    with pytest.raises(ContentsError, match=r"index.html: is missing"):
        prepare(page, NAME)
    (page / "README.md").write_text("---\nsdk: gradio\n---\n", encoding="utf-8")
    with pytest.raises(ContentsError, match="sdk is 'gradio'"):
        prepare(page, NAME)
