"""What all texts of the tree name exists: files, make's targets, commands with options that their parsers know."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from modeling_trm.commands import trm
from modeling_trm.training.arguments import parse_recipe
from modeling_trm.training.recipes import SHIPPED, shipped_names
from tests.docs.blocks import PAGES, ROOT, read_blocks

LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
FOLDERS = "scripts|datasets_builders|modeling_trm|model_cards|tests|docs|dev|examples"


def commands_of_pages() -> list[tuple[str, list[str]]]:
    """(where, words behind `trm`) of every block of bash, run or not."""
    blocks = [block for page in PAGES for block in read_blocks(page) if block.language == "bash"]
    commands = [(block.where, words) for block in blocks for words in block.commands()]
    return [
        (where, rest)
        for where, (program, *rest) in commands
        if program == "trm" and rest[:1] != [] and rest[0][0] != "-"
    ]


def commands_of_helps() -> list[tuple[str, list[str]]]:
    """Of the examples that `trm COMMAND --help` shows."""
    found = []
    for name in (*trm.COMMANDS, "vote-report"):
        text = str(trm.command_module(name).__doc__).replace("\\\n", " ")
        for line in re.findall(r"^  trm (.*)$", text, re.MULTILINE):
            example = re.split(r"(?<=\S) {2,}(?! |--)", line)[0]  # behind it stands what it does
            found.append((f"trm {name} --help", shlex.split(example.partition(" < ")[0])))
    return found


def commands_of_recipes() -> list[tuple[str, list[str]]]:
    """Of the comments of the recipes."""
    found = []
    for path in sorted(SHIPPED.glob("*.yaml")):
        comments = re.sub(r"\\\n#\s*", " ", path.read_text(encoding="utf-8"))
        found += [
            (path.name, shlex.split(line)) for line in re.findall(r"^#(?: +|.*: )trm ([^\n#]*)", comments, re.MULTILINE)
        ]
    return [(where, words) for where, words in found if words[0] in trm.COMMANDS]


@pytest.mark.parametrize("source", [commands_of_pages, commands_of_helps, commands_of_recipes])
def test_every_command_is_understood(source, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = source()
    assert len(commands) >= 15
    for where, words in commands:
        code = exit_code(words)
        assert code == 0, f"{where}: trm {shlex.join(words)}: {capsys.readouterr().err}"


def exit_code(words: list[str]) -> object:
    try:
        parse(words)
    except SystemExit as end:
        return end.code
    return 0


def parse(words: list[str]) -> None:
    """What a command makes of its words before anything is read. Raises SystemExit where they are wrong."""
    name, *rest = words
    if "--import" in rest:  # read as soon as it is met; the pages' own tests do that
        at = rest.index("--import")
        assert rest[at + 1].endswith(".py")
        del rest[at : at + 2]
    if name == "train":
        if rest[0].isupper() or rest[0].endswith(".yaml"):  # the reader's own
            return
        assert rest[0] in shipped_names(), rest[0]
        parse_recipe(rest)
        return
    if name in ("solve-onnx", "doctor"):  # they stand alone, with parsers of their own
        return
    if "--update-card" in rest:  # its folder must be there
        Path(rest[rest.index("--model") + 1]).mkdir(parents=True, exist_ok=True)
    if [name, *rest[:1]] == ["vote", "report"]:
        name, rest = "vote-report", rest[1:]
    trm.command_module(name).parse_arguments(rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in LINK.findall(text):
        assert (page.parent / target).exists(), f"{page.name}: {target}"
    for name in re.findall(rf"`((?:{FOLDERS})/[\w./-]+\.(?:py|yaml|md|txt))`", text):
        assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_the_page_of_the_builders_names_every_file():
    text = (ROOT / "datasets_builders" / "README.md").read_text(encoding="utf-8")
    named = [
        name
        for names in re.findall(r"^\| (\w+\.py(?:, \w+\.py)*) \|", text, re.MULTILINE)
        for name in names.split(", ")
    ]
    assert sorted([*named, "__init__.py"]) == sorted(path.name for path in (ROOT / "datasets_builders").glob("*.py"))


def test_targets_of_make_exist():
    texts = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    targets = set(re.findall(r"(?:`|^)make ([a-z-]+)", texts, re.MULTILINE))
    assert {"quickstart", "test", "check", "docs"} <= targets
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), targets


def test_every_command_that_builds_arc_says_what_to_do_about_leaks():
    """ARC-AGI-1 itself has two: without --on-leak the commands would end in an error."""
    texts = [path for top in ("scripts", "datasets_builders", "modeling_trm") for path in (ROOT / top).rglob("*.*")]
    texts = [
        *(page for page in PAGES if page.suffix == ".md"),
        *(path for path in texts if path.suffix in {".py", ".md", ".yaml"}),
    ]
    commands = []
    for path in texts:
        joined = re.sub(r"\\\n(#\s*)?", " ", path.read_text(encoding="utf-8"))
        commands += re.findall(r"(?:build_datasets\.py|trm build-data) arc (--[^\n]*)", joined)
    assert len(commands) >= 8
    assert all("--on-leak" in command for command in commands), commands


def test_the_readme_fits_two_screens_and_shows_a_picture():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    (picture,) = re.findall(r"!\[[^\]]+\]\((docs/images/[^)]+)\)", text)
    assert (ROOT / picture).stat().st_size < 2_000_000


def test_who_wants_to_join_finds_what_projects_have():
    for name in ("CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "SECURITY.md", "CITATION.cff", "LICENSE", "CHANGELOG.md"):
        assert (ROOT / name).stat().st_size > 200, name
    templates = {path.name for path in (ROOT / ".github").rglob("*.md")}
    assert templates >= {"bug.md", "idea.md", "pull_request_template.md"}
    assert "## Deprecation" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["authors"] and {"Documentation", "Repository"} <= project["urls"].keys()
    assert any(one.startswith("Programming Language :: Python :: 3.") for one in project["classifiers"])


def test_the_workflow_runs_what_ci_runs():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert re.findall(r"^ +- run: (.*)$", workflow, re.MULTILINE) == [".ci/run"]


def test_examples_are_short():
    files = sorted((ROOT / "examples").glob("*.py"))
    assert len(files) == 3
    for path in files:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 60, path.name
