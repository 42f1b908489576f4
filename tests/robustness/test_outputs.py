"""Where something may be written, what is kept, and who is told: one way for all commands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_trm.utils.files import check_file, clear_up, replaced, write_text
from modeling_trm.utils.locks import LOCK, locked
from modeling_trm.utils.manifest import find_damage
from modeling_trm.utils.outputs import check_folder, check_new_folder, check_result_file, new_folder, refuse_source

ROOT = Path(__file__).parents[2]


def test_a_device_a_pipe_and_a_folder_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (Path("/dev/null"), "a device or a pipe"),
        (tmp_path / "pipe", "a device or a pipe"),
        (tmp_path, "is a folder"),
        (Path("/dev/null/x"), "/dev/null is a file, not a folder"),
    ):
        with pytest.raises(ValueError, match=reason):
            write_text(path, "x")


def test_a_name_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    for name, reason in (
        ("one", "the links lead in a circle"),
        ("one/below", "the links lead in a circle"),
        ("~/a", "~/a: ~ stands for a home folder in a shell alone; write the folder out, or ./~/a"),
        ("a\0b", r"'.*a\\x00b': is no name of a file; allowed: UTF-8"),
        ("a\udcff", r"'.*a\\udcff': is no name of a file; allowed: UTF-8"),
    ):
        for check in (check_file, check_folder, check_result_file, lambda path: check_new_folder(path, overwrite=True)):
            with pytest.raises(ValueError, match=reason):
                check(Path(name) if name[0] == "~" else tmp_path / name)


def test_where_a_command_prints_to_is_no_output(tmp_path: Path) -> None:
    program = "from pathlib import Path; from modeling_trm.utils import files; files.check_file(Path('a.json'))"
    with (tmp_path / "a.json").open("w") as printed:
        command, there = [sys.executable, "-c", program], os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=there, stdout=printed, stderr=subprocess.PIPE, text=True)
    assert "a.json: is where this command prints to; give another file" in done.stderr


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "elsewhere" / "real.json")
    write_text(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "elsewhere" / "real.json").read_text() == "new"
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere" / "run")
    with locked(tmp_path / "run"):
        write_text(tmp_path / "run" / "log", "new")
    assert (tmp_path / "elsewhere" / "run" / "log").read_text() == "new"


def test_folders_that_are_somebodys_are_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))
    (tmp_path / "home" / "me").mkdir(parents=True)
    for path in (".", "/", str(tmp_path), "~", "home"):
        with pytest.raises(ValueError, match="the folder you are in, your home, or around them"):
            check_new_folder(Path(path).expanduser(), overwrite=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        check_new_folder(tmp_path / "file", overwrite=True)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # a user without a name or a home, as in containers
    assert check_new_folder(tmp_path / "new", overwrite=True) == tmp_path / "new"


def test_only_files_of_the_manifest_are_replaced(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with new_folder(tmp_path / "set", overwrite=True) as folder:
            write_text(folder / "a" / "b.txt", text)
    assert (tmp_path / "set" / "a" / "b.txt").read_text() == "two"
    assert find_damage(tmp_path / "set") is None
    (tmp_path / "set" / "thesis.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"files that no run of ours wrote like this: thesis\.txt; move them away"):
        check_new_folder(tmp_path / "set", overwrite=True)
    (tmp_path / "set" / "thesis.txt").unlink()
    written = (tmp_path / "set" / "a" / "b.txt").read_bytes()
    (tmp_path / "set" / "a" / "b.txt").write_text("two, and what I think of it")
    with pytest.raises(ValueError, match=r"no run of ours wrote like this: a/b\.txt; move them away"):
        check_new_folder(tmp_path / "set", overwrite=True)
    (tmp_path / "set" / "a" / "b.txt").write_bytes(written)
    (tmp_path / "set" / "manifest.json").write_text('{"name": "my package"}')
    with pytest.raises(ValueError, match=r"manifest\.json is damaged or of another program"):
        check_new_folder(tmp_path / "set", overwrite=True)


def test_what_is_read_is_no_output(tmp_path: Path) -> None:
    for name in ("model", "x"):
        (tmp_path / "run" / name).mkdir(parents=True)
    with pytest.raises(ValueError, match="which is read"):
        refuse_source(tmp_path / "run", [tmp_path / "run" / "x" / ".." / "model"], ["model", "weights"])
    refuse_source(tmp_path / "run", [tmp_path / "run" / "data", None, "org/name", "5" * 5000], ["model"])


def test_a_checkpoint_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="is a checkpoint's folder"):
        check_folder(tmp_path)
    with pytest.raises(ValueError, match="lies in a checkpoint's folder"):
        check_result_file(tmp_path / "answers.json")


def hold(folder: Path, name: str = LOCK) -> subprocess.Popen:
    """A process that has the lock of the folder until it is told to go or is killed."""
    program = (
        "import sys; from pathlib import Path; from modeling_trm.utils.locks import locked\n"
        "with locked(Path(sys.argv[1]), sys.argv[2]):\n    print('taken', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(folder), name]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    return process


def let_go(process: subprocess.Popen) -> None:
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()
    process.wait()


def test_the_second_process_is_told_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    process = hold(tmp_path / "run")
    with pytest.raises(OSError, match=rf"process {process.pid} on .* is writing there"), locked(tmp_path / "run"):
        pass
    process.kill()
    process.wait()
    assert (tmp_path / "run" / LOCK).exists()
    with locked(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())
    let_go(process)


def test_a_replacement_that_fails_changes_nothing(tmp_path: Path) -> None:
    with new_folder(tmp_path / "set", overwrite=False) as folder:
        write_text(folder / "a.txt", "old")

    def fail() -> None:
        with replaced(tmp_path / "set") as folder:
            write_text(folder / "a.txt", "new")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert (tmp_path / "set" / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["set"]


def test_litter_of_a_killed_run_goes_with_the_next(tmp_path: Path) -> None:
    for name in (".metrics.json.trm-part", "weights/.best.trm-old/config.json", ".model.trm-part/x", "mine.part"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    clear_up(tmp_path)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["mine.part", "weights/best/config.json"]  # what was being replaced is back
