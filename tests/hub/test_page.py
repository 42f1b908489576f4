"""A page as a static Space: what goes, that it is what the folder holds, and folders that are no whole page."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from modeling_trm.demo.build import ISOLATION, write_page
from modeling_trm.demo.contents import DemoModel
from modeling_trm.demo.runtime import FILES
from modeling_trm.publishing.contents import ContentsError
from modeling_trm.publishing.hub import publish, read_state
from modeling_trm.publishing.prepare import prepare
from tests.hub.fake_hub import FakeHub

NAME = "org/see-it-think"

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    facts = {
        "name": "small", "task": "sudoku", "grid_shape": [9, 9], "characters": ".123456789", "parameters": 1,
        "block_operators": ["mlp"], "repository": "org/small",
    }  # fmt: skip
    write_page([DemoModel(facts, b"graph")], {name: name.encode() for name in FILES}, tmp_path / "page")
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
