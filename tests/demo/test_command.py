"""trm demo: serves the page and opens it, or builds a folder; what was given wrong is one line."""

import threading
import urllib.request
import webbrowser
from pathlib import Path

import pytest

from modeling_trm.commands import demo
from modeling_trm.demo import build
from modeling_trm.demo.runtime import RuntimeFilesError


@pytest.fixture
def built(monkeypatch) -> list[tuple]:
    """Instead of a build, which takes its time and a runtime: a folder with a single file, and what was asked for."""
    calls = []

    def build_page(sources, output: Path, *, overwrite: bool, runtime: Path | None, data: str | None) -> int:
        calls.append((sources, overwrite, runtime, data))
        output.mkdir()
        (output / "index.html").write_text("the page", encoding="utf-8")
        return 8_000_000

    monkeypatch.setattr(build, "build_page", build_page)
    return calls


def test_it_builds_a_folder(built, tmp_path: Path, capsys) -> None:
    output = tmp_path / "site"
    assert (
        demo.main(["build", "--model", "a", "b/c", "--output", str(output), "--runtime", "dist", "--data", "tasks"])
        == 0
    )
    assert built == [(["a", "b/c"], False, Path("dist"), "tasks")]
    assert capsys.readouterr().out == f"{output / 'index.html'}: the page, 8.0 MB with models and runtime\n"


def test_it_serves_until_it_is_stopped_and_opens_the_browser(built, monkeypatch, capsys) -> None:
    seen = []

    def visit(address: str) -> None:
        """A browser is another program: it asks while the server serves."""
        thread = threading.Thread(target=lambda: seen.append(urllib.request.urlopen(f"{address}index.html").read()))
        thread.start()
        visitors.append(thread)

    def stop_after_a_visit(server) -> None:
        server.handle_request()
        visitors[0].join()
        raise KeyboardInterrupt

    visitors: list[threading.Thread] = []
    monkeypatch.setattr(webbrowser, "open", visit)
    monkeypatch.setattr("http.server.ThreadingHTTPServer.serve_forever", stop_after_a_visit)
    assert demo.main([]) == 0
    first, *_, largest = built[0][0]  # shipped ones
    assert (first, largest) == ("tr-mamba2mlpt-sudoku-quickstart", "tr-mamba2mlpt-sudoku")
    assert seen == [b"the page"]
    said = capsys.readouterr()
    assert said.out.startswith("http://127.0.0.1:")
    assert said.err.startswith("exporting tr-mamba2mlpt-sudoku-quickstart, ")


@pytest.mark.parametrize("arguments", [["build", "--model", "a"], ["--model", "a", "--output", "site"]])
def test_the_output_belongs_to_build(arguments, refused) -> None:
    assert "--output DIR belongs to `trm demo build`, which needs it" in refused(demo.main, arguments)


def test_a_failed_build_ends_with_one_line(monkeypatch, tmp_path: Path, refused) -> None:
    def fail(*_, **__):
        raise RuntimeFilesError("npm was not found")

    monkeypatch.setattr(build, "runtime_files", fail)
    assert refused(demo.main, ["build", "--model", "a", "--output", str(tmp_path / "site")]).endswith(
        " ...\nerror: npm was not found\n"
    )
    assert list(tmp_path.iterdir()) == []
