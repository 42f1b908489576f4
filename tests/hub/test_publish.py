"""scripts/publish.py against the fake Hub: one commit, nothing by halves, and what a user is told when it fails."""

import json
import logging
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from modeling_trm.publishing.hub import publish, read_state
from modeling_trm.publishing.hub_errors import HubError
from modeling_trm.publishing.prepare import prepare
from scripts import publish as script
from tests.hub.fake_hub import FakeHub, Fault
from tests.hub.hub_api import READ_TOKEN, WRITE_TOKEN

NAME = "org/puzzles"
SHARD = "data/train-00000-of-00001.parquet"

Fails = Callable[..., str]

# huggingface_hub hands large files to its HTTP library in a way that this calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


@pytest.fixture
def fails(refused: Callable[..., str]) -> Fails:
    """fails(arguments...): the one line that publish.py ends with, after exit code 2."""

    def run(*arguments: str) -> str:
        shown = refused(script.main, [str(argument) for argument in arguments])
        errors = [line for line in shown.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        return errors[0]

    return run


def run(*arguments: object) -> None:
    assert script.main([str(argument) for argument in arguments]) == 0


def files_of(hub: FakeHub) -> dict[str, bytes]:
    return hub.files(NAME, "dataset") if ("dataset", NAME) in hub.store.repositories else {}


def test_everything_goes_in_one_commit(hub: FakeHub, dataset: Path, tmp_path: Path, capsys) -> None:
    run(dataset, NAME, "--message", "First puzzles", "--output", tmp_path / "result.json")
    assert files_of(hub) == {
        "README.md": (dataset / "README.md").read_bytes().replace(b"THIS_FOLDER_OR_REPOSITORY", NAME.encode()),
        SHARD: (dataset / SHARD).read_bytes(),
    }
    assert hub.messages(NAME, "dataset") == ["First puzzles"]
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    commit = hub.store.repositories["dataset", NAME].branches["main"]
    assert (result["repository"], result["commit"]) == (NAME, commit)
    assert result["url"] == f"{hub.url}/datasets/{NAME}/commit/{commit}"
    assert result["files"][1] == {"path": SHARD, "size": (dataset / SHARD).stat().st_size, "change": "new"}
    assert f"published: {result['url']}" in capsys.readouterr().out


def test_only_what_changed_goes_again(hub: FakeHub, dataset: Path, capsys) -> None:
    run(dataset, NAME)
    hub.requests.clear()
    run(dataset, NAME)
    assert not [request for request in hub.requests if not request.startswith("GET")]
    assert "nothing to change" in capsys.readouterr().out
    (dataset / "README.md").write_text((dataset / "README.md").read_text(encoding="utf-8") + "more\n", encoding="utf-8")
    run(dataset, NAME)
    assert not [request for request in hub.requests if "lfs" in request]
    assert files_of(hub)["README.md"].endswith(b"more\n")
    assert len(hub.messages(NAME, "dataset")) == 2
    for name in ("README.md", SHARD):  # of the same size; the one is a text, the other a large file
        old, new = (b"more", b"less") if name == "README.md" else (b"1.", b"3.")
        (dataset / name).write_bytes((dataset / name).read_bytes().replace(old, new))
        run(dataset, NAME)
        assert new in files_of(hub)[name] and old not in files_of(hub)[name]


def test_what_the_folder_no_longer_has(hub: FakeHub, dataset: Path, capsys) -> None:
    run(dataset, NAME)
    (dataset / SHARD).rename(dataset / "data/train-00000-of-00002.parquet")
    capsys.readouterr()
    run(dataset, NAME)
    assert f"only on the Hub, stay there (--delete-others removes them): {SHARD}" in capsys.readouterr().out
    assert SHARD in files_of(hub)
    run(dataset, NAME, "--delete-others")
    assert set(files_of(hub)) == {"README.md", "data/train-00000-of-00002.parquet"}
    assert len(hub.messages(NAME, "dataset")) == 3
    repository = hub.store.repositories["dataset", NAME]
    assert ".gitattributes" in repository.commits[repository.branches["main"]][0]


def test_dry_run_writes_nothing(hub: FakeHub, dataset: Path, tmp_path: Path, capsys) -> None:
    (dataset / "notes.txt").write_text("mine", encoding="utf-8")
    run(dataset, NAME, "--dry-run")
    assert hub.store.repositories == {}
    run(dataset, NAME)
    before = dict(hub.store.repositories["dataset", NAME].commits)
    (dataset / SHARD).rename(dataset / "data/train-1.parquet")
    hub.requests.clear()
    capsys.readouterr()
    run(dataset, NAME, "--dry-run", "--delete-others", "--output", tmp_path / "plan.json")
    assert all(request.startswith("GET") for request in hub.requests)
    assert hub.store.repositories["dataset", NAME].commits == before
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["same", "new"]
    assert f"only on the Hub, will be deleted there: {SHARD}" in lines
    assert "left out: notes.txt" in lines
    plan = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert (plan["dry_run"], plan["commit"], plan["deleted"]) == (True, None, [SHARD])


@pytest.mark.parametrize("why", ["offline", "no network", "no token", "500"])
def test_dry_run_without_the_hub(hub: FakeHub, dataset: Path, why: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", why == "offline")
    if why == "no network":
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            port = nobody.getsockname()[1]
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    if why == "no token":  # sees what is public: here nothing
        monkeypatch.delenv("HF_TOKEN")
    if why == "500":
        hub.fail("GET", "/api/", 100)
    run(dataset, NAME, "--dry-run")
    shown = capsys.readouterr()
    assert f"  {'new' if why == 'no token' else 'goes':9} " in shown.out and SHARD in shown.out
    assert ("note: the Hub was not asked" in shown.err) == (why != "no token")


FAULTS: list[Fault] = [500, 401, 403, "drop request"]
STEPS = [
    ("GET", "^/api/datasets/"),
    ("POST", "/api/repos/create"),
    ("POST", "/api/validate-yaml"),
    ("POST", "/preupload/"),
    ("POST", r"\.git/info/lfs/objects/batch"),
    ("PUT", "^/_lfs/"),
    ("POST", "/commit/"),
]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("method", "pattern"), STEPS)
def test_a_failure_publishes_nothing_and_a_repeat_succeeds(
    hub: FakeHub, dataset: Path, method: str, pattern: str, fault: Fault, fails: Fails
) -> None:
    hub.fail(method, pattern, 1000, fault)
    line = fails(dataset, NAME)
    assert (f"answered {fault}" if isinstance(fault, int) else f"no answer from {hub.url}") in line
    assert NAME in line
    assert files_of(hub) == {}
    is_created = ("dataset", NAME) in hub.store.repositories
    assert is_created == (STEPS.index((method, pattern)) > 1)
    assert ("(the repository was created and is empty)" in line) == is_created
    hub.recover()
    run(dataset, NAME)
    assert set(files_of(hub)) == {"README.md", SHARD}
    assert len(hub.messages(NAME, "dataset")) == 1


@pytest.mark.parametrize(("method", "pattern"), STEPS[3:6])
def test_a_fault_that_passes_is_overcome(hub: FakeHub, dataset: Path, method: str, pattern: str) -> None:
    hub.fail(method, pattern, 2, 503)
    run(dataset, NAME)
    assert set(files_of(hub)) == {"README.md", SHARD}


def test_a_failure_leaves_what_was_published_before(hub: FakeHub, dataset: Path, fails: Fails) -> None:
    run(dataset, NAME)
    before = files_of(hub)
    (dataset / SHARD).rename(dataset / "data/train-1.parquet")
    hub.fail("POST", "/commit/")
    assert "nothing of it was published; the same command can be given again" in fails(dataset, NAME, "--delete-others")
    assert files_of(hub) == before
    run(dataset, NAME, "--delete-others")
    assert set(files_of(hub)) == {"README.md", "data/train-1.parquet"}


def test_a_lost_answer_is_found_out(hub: FakeHub, dataset: Path, capsys) -> None:
    hub.fail("POST", "/commit/", 1, "drop answer")
    run(dataset, NAME)
    assert "published: " in capsys.readouterr().out
    assert len(hub.messages(NAME, "dataset")) == 1
    (dataset / "README.md").write_text((dataset / "README.md").read_text(encoding="utf-8") + "more\n", encoding="utf-8")
    state = read_state(NAME, "dataset", None)
    hub.fail("POST", "/commit/", 1, "drop answer")
    hub.fail("GET", "/api/datasets/", 1000, 500)  # and then the Hub is gone
    with pytest.raises(HubError, match=r"whether the commit arrived is not known .* whole or not at all"):
        publish(prepare(dataset, NAME), NAME, state)
    hub.recover()
    run(dataset, NAME)
    assert "nothing to change" in capsys.readouterr().out


def test_a_commit_in_between_is_noticed(hub: FakeHub, dataset: Path) -> None:
    run(dataset, NAME)
    state = read_state(NAME, "dataset", None)
    hub.store.repositories["dataset", NAME].commit("main", {"theirs.txt": b"1"}, "theirs")
    (dataset / "README.md").write_text((dataset / "README.md").read_text(encoding="utf-8") + "more\n", encoding="utf-8")
    with pytest.raises(HubError, match="answered 412: the repository has changed in the meantime"):
        publish(prepare(dataset, NAME), NAME, state, delete_others=True)
    assert files_of(hub) == {"theirs.txt": b"1"}


def test_private(hub: FakeHub, dataset: Path, fails: Fails) -> None:
    run(dataset, NAME, "--private")
    assert hub.store.repositories["dataset", NAME].private
    run(dataset, NAME, "--private")
    hub.store.repositories["dataset", NAME].private = False
    for more in ([], ["--dry-run"]):
        assert f"{NAME} is public, and --private changes no" in fails(dataset, NAME, "--private", *more)
    run(dataset, NAME)
    run(dataset, "org/open")
    assert not hub.store.repositories["dataset", "org/open"].private


def test_branch(hub: FakeHub, dataset: Path, fails: Fails) -> None:
    run(dataset, NAME)
    main = files_of(hub)
    (dataset / SHARD).write_bytes((dataset / SHARD).read_bytes())
    (dataset / "LICENSE").write_text("text", encoding="utf-8")
    hub.fail("POST", "/commit/")
    assert "the branch v2 was created and is still equal to main" in fails(dataset, NAME, "--revision", "v2")
    run(dataset, NAME, "--revision", "v2")
    assert files_of(hub) == main
    assert hub.files(NAME, "dataset", "v2") == main | {"LICENSE": b"text"}
    run(dataset, "org/new", "--revision", "v1")
    assert set(hub.files("org/new", "dataset")) == set()
    assert set(hub.files("org/new", "dataset", "v1")) == {"README.md", SHARD, "LICENSE"}


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (None, "no token was found; log in with `hf auth login`"),
        ("hf_un known", "holds spaces or characters that no token has"),
        ("hf_ünknown", "holds spaces or characters that no token has"),
        ("hf_unknown", "the Hub answered 401: the token was not accepted"),
        (READ_TOKEN, "the Hub answered 403: the token may not write there"),
    ],
)
def test_tokens(hub: FakeHub, dataset: Path, token: str | None, message: str, fails: Fails, monkeypatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    line = fails(dataset, NAME)
    assert message in line
    assert token is None or token not in line
    assert hub.store.repositories == {}


@pytest.mark.parametrize("name", ["name", "a/b/c", "org/na me", "org/"])
def test_names(dataset: Path, name: str, fails: Fails) -> None:
    assert repr(name) in fails(dataset, name)


def test_offline(hub: FakeHub, dataset: Path, fails: Fails, monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "offline mode is on" in fails(dataset, NAME)
    assert hub.requests == []


def test_the_token_is_never_shown(hub: FakeHub, dataset: Path, tmp_path: Path, capfd, caplog, monkeypatch) -> None:
    """Not in what is printed, logged or written, not even when a server sends it back."""
    monkeypatch.setattr(constants, "HF_DEBUG", True)
    caplog.set_level(logging.DEBUG)
    logging.getLogger("huggingface_hub").setLevel(logging.DEBUG)
    try:
        run(dataset, NAME, "--output", tmp_path / "result.json")
        for method, pattern in STEPS:
            hub.store.large_files.clear()  # so that they are sent again
            hub.fail(method, pattern, 1000, "echo")
            with pytest.raises(SystemExit):
                script.main([str(dataset), "org/other"])
            hub.recover()
    finally:
        logging.getLogger("huggingface_hub").setLevel(logging.NOTSET)
    shown = capfd.readouterr()
    assert "<token>" in shown.err
    written = "".join(path.read_text(encoding="utf-8") for path in tmp_path.glob("*.json"))
    for text in (shown.out, shown.err, caplog.text, written, *hub.messages(NAME, "dataset")):
        assert WRITE_TOKEN not in text
    assert not any(WRITE_TOKEN.encode() in content for content in files_of(hub).values())
