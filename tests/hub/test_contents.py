"""What of a folder goes to the Hub, what is left out, and which folders are refused before anything is sent."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from modeling_trm import GridProcessor
from modeling_trm.metrics.pass_at_k import ranking
from modeling_trm.publishing.checkpoint import _weights, installed_code
from modeling_trm.publishing.contents import Contents, ContentsError
from modeling_trm.publishing.prepare import prepare
from modeling_trm.utils.loading import CheckpointError
from scripts import build_datasets

METRIC = Path(ranking.__file__).parent


def content_of(contents: Contents, path: str) -> bytes:
    (found,) = [upload.content for upload in contents.uploads if upload.path == path]
    return found if isinstance(found, bytes) else found.read_bytes()


def paths(contents: Contents) -> set[str]:
    return {upload.path for upload in contents.uploads}


def test_checkpoint_goes_whole_and_nothing_else_does(checkpoint, contents_of) -> None:
    folder = checkpoint()
    expected = set(contents_of(folder))
    for junk in (
        "notes.txt",
        ".env",
        "optimizer.bin",
        "model_old.safetensors",
        "plots/raw.csv",
        "resume/a",
        "resume/b",
    ):
        (folder / junk).parent.mkdir(exist_ok=True)
        (folder / junk).write_text("secret", encoding="utf-8")
    before = contents_of(folder)
    contents = prepare(folder, "org/name")
    assert (contents.kind, contents.repo_type) == ("checkpoint", "model")
    assert paths(contents) == expected
    assert {"config.json", "model.safetensors", "puzzle_table.safetensors", "plots/accuracy.png"} <= expected
    left_out = {".env", "model_old.safetensors", "notes.txt", "optimizer.bin", "plots/raw.csv", "resume/ (2 files)"}
    assert set(contents.left_out) == left_out
    assert contents_of(folder) == before
    same = expected - {"README.md", "metrics.json"}
    assert all(content_of(contents, path) == before[path] for path in same)


def test_card_names_the_repository(checkpoint) -> None:
    folder = checkpoint()
    contents = prepare(folder, "org/a-name")
    assert contents.notes == ("README.md was rendered from metrics.json for org/a-name",)
    card = content_of(contents, "README.md").decode()
    assert 'name = "org/a-name"' in card
    assert 'name = "org/a-name"' not in (folder / "README.md").read_text(encoding="utf-8")
    assert "plots/accuracy.png" in card


def test_card_without_figures_goes_as_it_is(checkpoint) -> None:
    folder = checkpoint()
    (folder / "metrics.json").unlink()
    (folder / "README.md").write_text("---\nlicense: mit\n---\nby hand", encoding="utf-8")
    assert content_of(prepare(folder, "org/name"), "README.md") == b"---\nlicense: mit\n---\nby hand"


def test_a_card_that_somebody_changed_stays_theirs(checkpoint) -> None:
    """All of it but the name in the example; a card of the template is made anew."""
    folder = checkpoint()
    card = folder / "README.md"
    made = card.read_text(encoding="utf-8")
    changed = made.replace("---\n", "---\nlicense: cc-by-nc-4.0\n", 1) + "\nA note by hand: naïve.\n"
    for text in (changed, changed.replace("\n", "\r\n")):
        card.write_bytes(text.encode())
        contents = prepare(folder, "org/a-name")
        expected = text.replace('name = "path/to/this/folder"', 'name = "org/a-name"').encode()
        assert content_of(contents, "README.md") == expected != text.encode()
        assert json.loads(content_of(contents, "metrics.json"))["repository"] == "org/a-name"
        assert any("goes as it is" in note and "--rerender-card" in note for note in contents.notes)
        assert card.read_bytes() == text.encode()
    card.write_bytes(expected)  # taken from the Hub, and published under another name
    assert b'name = "org/b-name"' in content_of(prepare(folder, "org/b-name"), "README.md")

    contents = prepare(folder, "org/a-name", rerender_card=True)
    assert b"by hand" not in content_of(contents, "README.md")
    assert contents.notes == ("README.md was rendered from metrics.json for org/a-name",)


def test_a_card_without_the_example_must_name_the_repository(checkpoint) -> None:
    folder = checkpoint()
    (folder / "README.md").write_text("---\nlicense: mit\n---\nSee org/a-name.\n", encoding="utf-8")
    assert content_of(prepare(folder, "org/a-name"), "README.md") == (folder / "README.md").read_bytes()
    with pytest.raises(ContentsError, match=r"README\.md: is not what .* give --rerender-card to replace the card"):
        prepare(folder, "org/b-name")
    assert b'name = "org/b-name"' in content_of(prepare(folder, "org/b-name", rerender_card=True), "README.md")


def test_only_the_card_of_a_checkpoint_with_figures_is_rendered(checkpoint, dataset: Path) -> None:
    with pytest.raises(ContentsError, match="is no checkpoint; --rerender-card"):
        prepare(dataset, "org/name", rerender_card=True)
    folder = checkpoint()
    (folder / "metrics.json").unlink()
    with pytest.raises(ContentsError, match=r"metrics\.json: is missing"):
        prepare(folder, "org/name", rerender_card=True)


def test_code_is_added_where_there_is_none(checkpoint, contents_of) -> None:
    """What is added is what save_pretrained writes."""
    folder = checkpoint()
    code = {path: content for path, content in contents_of(folder).items() if path.endswith("_trm.py")}
    assert set(code) == set(installed_code())
    for path in code:
        (folder / path).unlink()
    contents = prepare(folder, "org/name")
    assert {path: content_of(contents, path) for path in paths(contents) if path.endswith("_trm.py")} == code
    (folder / "modeling_trm.py").write_bytes(code["modeling_trm.py"])  # a part of it is completed
    assert paths(prepare(folder, "org/name")) == paths(contents)


def test_code_of_another_version(checkpoint) -> None:
    folder = checkpoint()
    other = folder / "recursion_trm.py"
    other.write_text(other.read_text(encoding="utf-8") + "# older\n", encoding="utf-8")
    contents = prepare(folder, "org/name")
    assert content_of(contents, "recursion_trm.py").endswith(b"# older\n")
    assert any("another version" in note and "recursion_trm.py" in note for note in contents.notes)
    (folder / "mlp_trm.py").unlink()
    with pytest.raises(ContentsError, match=r"lacks mlp_trm\.py, and recursion_trm\.py is of another version"):
        prepare(folder, "org/name")


def test_code_of_a_users_own_operators(checkpoint) -> None:
    folder = checkpoint()
    code = "from torch import nn\nfrom .operators_trm import OPERATORS\nclass Mine(nn.Linear): pass\n"
    (folder / "mine_trm.py").write_text(code, encoding="utf-8")
    hook = "from .mine_trm import Mine as operator_0\n\nOWN_OPERATORS = {\n    'mine': operator_0,\n}\n"
    (folder / "own_operators_trm.py").write_text(hook, encoding="utf-8")
    own_note = "code of the checkpoint's own operators goes along: mine_trm.py"
    assert [note for note in prepare(folder, "org/name").notes if "code" in note] == [own_note]
    # What is ours can be completed, theirs cannot.
    (folder / "mlp_trm.py").unlink()
    contents = prepare(folder, "org/name")
    assert {"mlp_trm.py", "mine_trm.py"} <= set(paths(contents)) and own_note in contents.notes
    (folder / "mine_trm.py").unlink()
    with pytest.raises(ContentsError, match=r"its code needs mine_trm\.py, which is neither there nor in the package"):
        prepare(folder, "org/name")


def test_sharded_weights_go_with_their_index_alone(checkpoint, tiny_model) -> None:
    folder = checkpoint()
    (folder / "model.safetensors").unlink()
    tiny_model("trm-mlp-t").save_pretrained(folder, max_shard_size="20KB")
    shards = {file.name for file in folder.glob("model-*.safetensors")}
    assert len(shards) > 1
    (folder / "model-00001-of-00099.safetensors").write_bytes(b"of an older save")
    found = {path for path in paths(prepare(folder, "org/name")) if path.startswith("model") and path[-3:] != ".py"}
    assert found == shards | {"model.safetensors.index.json"}


def test_a_shard_outside_of_the_folder_is_refused(checkpoint) -> None:
    folder = checkpoint()
    (folder / "model.safetensors").rename(folder.parent / "a.safetensors")
    index = {"weight_map": {"lm_head.weight": "../a.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ContentsError, match=r"names the shard '\.\./a\.safetensors', which is not in the folder"):
        _weights(folder)


def test_code_that_nobody_has_is_named(checkpoint) -> None:
    folder = checkpoint()
    for file in folder.glob("*_trm.py"):
        file.unlink()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    auto_map({**config["auto_map"], "AutoModel": "mine_trm.Model"})(folder)
    with pytest.raises(ContentsError, match=r"its code needs mine_trm\.py, which is neither there nor in the package"):
        prepare(folder, "org/name")


def writes(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def remove_weight(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors.pop("lm_head.weight")
    save_file(tensors, file, {"format": "pt"})


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def drop_auto_map(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["auto_map"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def auto_map(value: object, name: str = "config.json") -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8")) | {"auto_map": value}
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    return change


def other_processor(folder: Path) -> None:
    GridProcessor("maze", grid_shape=(5, 5)).save_pretrained(folder)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (writes("config.json", "{"), r"config\.json: is no JSON"),
        (writes("config.json", "{}"), "model_type is None; allowed: 'trm'"),
        (writes("README.md", "# Title"), r"README\.md: has no front matter"),
        (writes("README.md", "---\na: [\n---\n"), "front matter is no YAML"),
        (lambda folder: (folder / "README.md").write_bytes(b"\xff"), "is no UTF-8 text"),
        (lambda folder: (folder / "README.md").unlink(), r"README\.md: is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors: is missing"),
        (lambda folder: (folder / "puzzle_table.safetensors").unlink(), r"puzzle_table\.safetensors: is missing"),
        (writes("metrics.json", "["), r"metrics\.json: is no JSON"),
        (writes("metrics.json", "{}"), r"metrics\.json: metrics: missing evaluations"),
        (writes("metrics.json", "[]"), r"metrics\.json: holds a list"),
        (writes("metrics.json", '{"evaluations": []}'), r"metrics\.json: metrics\['evaluations'\]: holds a list"),
        (truncate, "the model does not load"),
        (remove_weight, r"missing.*lm_head\.weight"),
        (drop_auto_map, "auto_map has no AutoConfig, AutoModel"),
        (auto_map([]), r"config\.json: auto_map is \[\], no mapping of AutoConfig, AutoModel"),
        (auto_map("modeling_trm.X"), r"config\.json: auto_map is 'modeling_trm\.X', no mapping"),
        (auto_map([], "preprocessor_config.json"), r"preprocessor_config\.json: auto_map is \[\], no mapping of AutoF"),
        (other_processor, "the model does not fit the puzzles.*seq_len=16"),
    ],
)
def test_broken_checkpoints_are_refused_by_name(checkpoint, break_it, message: str) -> None:
    folder = checkpoint()
    break_it(folder)
    with pytest.raises((ContentsError, CheckpointError, ValueError), match=message) as caught:
        prepare(folder, "org/name")
    assert "\n" not in str(caught.value)


def test_built_data_set(tmp_path: Path, contents_of) -> None:
    folder = tmp_path / "built"
    assert build_datasets.main(["maze", "--output", str(folder)]) == 0
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    contents = prepare(folder, "org/mazes")
    assert (contents.kind, contents.repo_type, contents.left_out) == (
        "dataset",
        "dataset",
        ("manifest.json", "notes.txt"),
    )
    assert paths(contents) == set(contents_of(folder)) - {"manifest.json", "notes.txt"}
    card = content_of(contents, "README.md").decode()
    assert 'load_dataset("org/mazes"' in card and "THIS_FOLDER" not in card

    (stale := folder / "data/train-00001-of-00002.parquet").write_bytes(next(folder.glob("data/*")).read_bytes())
    with pytest.raises(ContentsError, match=r"train-00001-of-00002\.parquet: is not of this build"):
        prepare(folder, "org/mazes")
    stale.unlink()
    pq.write_table(pa.table({"question": ["x"]}), next(folder.glob("data/train*")))
    with pytest.raises(ContentsError, match="truncated or altered"):
        prepare(folder, "org/mazes")


@pytest.mark.parametrize("data_files", ['"*.csv"', '["*.csv"]', "{train: a.csv}", '[{split: train, path: ["a.csv"]}]'])
def test_every_form_of_data_files(tmp_path: Path, data_files: str) -> None:
    (tmp_path / "a.csv").write_text("question\n1\n", encoding="utf-8")
    (tmp_path / "README.md").write_text(f"---\nconfigs: [{{data_files: {data_files}}}]\n---\n", encoding="utf-8")
    assert paths(prepare(tmp_path, "org/name")) == {"a.csv", "README.md"}


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ("[]", r"README\.md: configs: is no list of configurations"),
        ("{a: 1}", r"README\.md: configs: is no list of configurations"),
        ("[{config_name: a}]", "config 'a' has no data_files"),
        ("[{data_files: data/test-*}]", "no file matches 'data/test-\\*'"),
        ("[{data_files: ../*}]", "leads out of the folder"),
        ("[{data_files: /etc/passwd}]", "leads out of the folder"),
        ("[{data_files: README.md}]", "has extension '.md'"),
    ],
)
def test_broken_data_sets_are_refused_by_name(dataset: Path, configs: str, message: str) -> None:
    (dataset / "README.md").write_text(f"---\nconfigs: {configs}\n---\n", encoding="utf-8")
    with pytest.raises(ContentsError, match=message):
        prepare(dataset, "org/name")


def test_unreadable_data_are_refused_by_name(dataset: Path) -> None:
    (dataset / "data/train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(ContentsError, match=r"train-00000-of-00001\.parquet: cannot be read as parquet"):
        prepare(dataset, "org/name")


def test_metric() -> None:
    contents = prepare(METRIC, "org/pass_at_k")
    assert (contents.kind, contents.repo_type, contents.left_out[0]) == ("metric", "space", "__init__.py")
    assert paths(contents) == {"README.md", "index.html", "pass_at_k.py", "ranking.py", "requirements.txt"}
    for name in ("README.md", "index.html"):
        assert 'evaluate.load("org/pass_at_k")' in content_of(contents, name).decode()
    assert "{" not in content_of(contents, "index.html").decode()


def test_metric_under_another_name_is_refused() -> None:
    with pytest.raises(ContentsError, match=r"has no other\.py; .* \(here: pass_at_k, ranking\)"):
        prepare(METRIC, "org/other")


def test_metric_of_another_sdk_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(METRIC, tmp_path / "pass_at_k")
    card = (folder / "README.md").read_text(encoding="utf-8")
    (folder / "README.md").write_text(card.replace("sdk: static", "sdk: gradio"), encoding="utf-8")
    with pytest.raises(ContentsError, match=r"README\.md: sdk is 'gradio'; .* says 'static'"):
        prepare(folder, "org/pass_at_k")


def test_metric_that_does_not_load_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(METRIC, tmp_path / "pass_at_k")
    (folder / "ranking.py").unlink()
    with pytest.raises(ContentsError, match=r"pass_at_k\.py: evaluate cannot load it: .*ranking"):
        prepare(folder, "org/pass_at_k")


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ContentsError, match="is no folder; allowed: a checkpoint"):
        prepare(tmp_path / "missing", "org/name")
    with pytest.raises(ContentsError, match=r"has neither config\.json nor README\.md"):
        prepare(tmp_path, "org/name")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    with pytest.raises(ContentsError, match=re.escape("has neither configs: nor the tag metric")):
        prepare(tmp_path, "org/name")
