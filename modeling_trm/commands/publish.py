"""Publish a checkpoint, a data set, a page or the metric on the Hugging Face Hub, in one commit.

examples:
  trm publish runs/quickstart/model org/tr-mamba2mlpt-sudoku --dry-run        what would go, and change
  trm publish runs/quickstart/model org/tr-mamba2mlpt-sudoku --private
  trm publish model_cards/NAME org/NAME --revision v2 --message "Twice the steps"
  trm publish data/sudoku org/sudoku --delete-others                      no shard of an older build stays
  trm publish modeling_trm/metrics/pass_at_k org/pass_at_k                a Space, for evaluate.load
  trm publish --space org/see-it-think            a static Space: the page of `trm demo`, with the shipped checkpoints
  trm publish runs/quickstart/model org/NAME --space org/see-it-think         ... with these, folders or ids on the Hub
  trm publish site --space org/see-it-think       ... or what `trm demo build --output site` wrote

What DIR is, its files tell. Only files of known names go, and only after a check that they load; whatever else lies in
DIR is listed and left out. A checkpoint's card that is what the template makes of metrics.json is rendered for
org/name; one with words or a licence of your own goes as it is, but for the name in its example (--rerender-card
renders it anew). DIR itself is not changed. The token is the one of `hf auth login` or HF_TOKEN. Exit code 0 when the
Hub holds what DIR holds (--dry-run: when DIR can be published), 2 on an error: then nothing of it was published, and
the same command can be given again.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import CommandParser, add_import, add_output_file

if TYPE_CHECKING:  # PyTorch takes seconds to import: --help and wrong arguments must not wait for it
    from ..publishing.contents import Contents
    from ..publishing.hub import Changes, HubState


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("publish", __doc__)
    add_import(parser)
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="DIR ORG/NAME",
        help="the folder of a checkpoint, a data set or the metric, and its repository, created if it is not there; "
        "with --space a page's folder, or checkpoints to build one of (default: the shipped ones)",
    )
    parser.add_argument("--space", metavar="ORG/NAME", help="the page goes to this static Space")
    parser.add_argument("--private", action="store_true", help="create a private repository; refuses a public one")
    parser.add_argument("--revision", metavar="BRANCH", help="commit to this branch, made from main if need be")
    parser.add_argument("--message", metavar="TEXT", help="of the commit (default: what was published)")
    parser.add_argument(
        "--delete-others", action="store_true", help="in the same commit, delete what the Hub has and DIR has not"
    )
    parser.add_argument(
        "--rerender-card",
        action="store_true",
        help="make a checkpoint's card from metrics.json even where it was written or changed by hand",
    )
    parser.add_argument("--dry-run", action="store_true", help="list what would go and change; write nothing there")
    add_output_file(parser, "write repository, commit, url and files to this file", "FILE.json")
    arguments = parser.parse_args(argv)
    if arguments.space is not None:
        arguments.sources, arguments.repository = arguments.paths, arguments.space
    elif len(arguments.paths) == 2:
        *arguments.sources, arguments.repository = arguments.paths
    else:
        parser.error(f"what goes where is DIR ORG/NAME, or --space ORG/NAME; got {arguments.paths}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from huggingface_hub.utils import validate_repo_id

    from ..publishing.hub import check_privacy, check_token, compare, publish, read_state
    from ..publishing.hub_errors import HubError
    from ..publishing.prepare import prepare
    from ..utils.cli import user_errors
    from ..utils.files import write_json

    repository, published = arguments.repository, None
    with user_errors(OSError, ValueError, ImportError, HubError), tempfile.TemporaryDirectory() as workplace:
        validate_repo_id(repository)
        if "/" not in repository:
            raise ValueError(f"{repository!r} names no owner; a repository on the Hub is org/name")
        folder = arguments.sources[0] if arguments.space is None else page_folder(arguments.sources, Path(workplace))
        contents = prepare(folder, repository, rerender_card=arguments.rerender_card)
        state: HubState | None = None
        try:
            if not arguments.dry_run:
                check_token()
            state = read_state(repository, contents.repo_type, arguments.revision)
            check_privacy(repository, state, arguments.private)
        except HubError as error:
            if not arguments.dry_run or state is not None:
                raise
            print(f"note: the Hub was not asked: {error}", file=sys.stderr)
        changes = None if state is None else compare(contents, state)
        for line in describe(arguments, contents, state, changes):
            print(line, flush=True)
        if not arguments.dry_run and state is not None:
            published = publish(
                contents,
                repository,
                state,
                private=arguments.private,
                revision=arguments.revision,
                message=arguments.message,
                delete_others=arguments.delete_others,
            )
            print(f"{'published' if published.is_new else 'nothing to change, all is there'}: {published.url}")
        if arguments.output is not None:
            result = as_json(arguments, contents, changes)
            result |= {"commit": published and published.commit, "url": published and published.url}
            write_json(arguments.output, result)
    return 0


def page_folder(sources: Sequence[str], workplace: Path) -> Path:
    """What goes to a Space: a folder that is a page, or the page of these checkpoints, built in the workplace."""
    from ..demo.build import build_page
    from ..publishing.page import is_page
    from ..utils.shipped import in_order_of_loading

    if len(sources) == 1 and is_page(Path(sources[0])):
        return Path(sources[0])
    build_page(sources or in_order_of_loading(), workplace / "page")
    return workplace / "page"


def describe(
    arguments: argparse.Namespace, contents: "Contents", state: "HubState | None", changes: "Changes | None"
) -> list[str]:
    """The plan in lines: every file with its size and what it does to the Hub, and what stays where it is."""
    branch = "" if arguments.revision is None else f", branch {arguments.revision}"
    source = ", ".join(arguments.sources) or "of the shipped checkpoints"
    lines = [f"{contents.kind} {source} -> {contents.repo_type} {arguments.repository}{branch}"]
    if state is not None and not state.exists:
        lines.append(f"the repository is not there yet: it will be created, {visibility(arguments.private)}")
    fates = fates_of(contents, changes)
    lines += [f"  {fates[one.path]:9} {human_size(one.size):>9}  {one.path}" for one in contents.uploads]
    total = sum(one.size for one in contents.uploads)
    lines.append(f"  {len(contents.uploads)} files, {human_size(total)}")
    if changes is not None and changes.only_on_hub:
        fate = "will be deleted there" if arguments.delete_others else "stay there (--delete-others removes them)"
        lines.append(f"only on the Hub, {fate}: {', '.join(changes.only_on_hub)}")
    if contents.left_out:
        lines.append(f"left out: {', '.join(contents.left_out)}")
    return [*lines, *(f"note: {note}" for note in contents.notes)]


def visibility(private: bool) -> str:
    return "private" if private else "public unless the owner's default is private"


def fates_of(contents: "Contents", changes: "Changes | None") -> dict[str, str]:
    """{path: new, changed or same}; "goes" where the Hub was not asked."""
    if changes is None:
        return {upload.path: "goes" for upload in contents.uploads}
    kinds = {"new": changes.new, "changed": changes.changed, "same": changes.same}
    return {path: kind for kind, paths in kinds.items() for path in paths}


def human_size(count: int) -> str:
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB"):
        if size >= 1000:
            size, unit = size / 1000, larger
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"


def as_json(arguments: argparse.Namespace, contents: "Contents", changes: "Changes | None") -> dict[str, Any]:
    """files: [{path, size, change}]; change is new, changed or same, null where the Hub was not asked."""
    fates = fates_of(contents, changes)
    others = [] if changes is None else list(changes.only_on_hub)
    return {
        "repository": arguments.repository,
        "repo_type": contents.repo_type,
        "kind": contents.kind,
        "revision": arguments.revision,
        "dry_run": arguments.dry_run,
        "files": [
            {"path": one.path, "size": one.size, "change": None if changes is None else fates[one.path]}
            for one in contents.uploads
        ],
        "deleted": others if arguments.delete_others else [],
        "only_on_hub": [] if arguments.delete_others else others,
        "left_out": list(contents.left_out),
    }
