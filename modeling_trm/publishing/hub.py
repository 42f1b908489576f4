"""The Hub's side: what a repository holds, what would change, and the one commit that changes it.

The token is the one that huggingface_hub finds (HF_TOKEN, or the file of `hf auth login`); it is not handled here.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from .contents import Contents, Upload
from .hub_errors import HUB_ERRORS, HubError, hub_errors, reason

KEPT = (".gitattributes",)  # the Hub's own; never deleted


@dataclass(frozen=True)
class HubState:
    """A repository's branch as it is. head: its commit, None without one; branch_exists: False reads main instead."""

    exists: bool
    private: bool = False
    branch_exists: bool = False
    head: str | None = None
    files: dict[str, RepoFile] = field(default_factory=dict)


@dataclass(frozen=True)
class Changes:
    """Paths: not yet on the Hub, different there, equal there, only there."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    same: tuple[str, ...]
    only_on_hub: tuple[str, ...]


@dataclass(frozen=True)
class Published:
    """commit: the branch's newest, whose files are the folder's; url: where to see it; is_new: made by this call."""

    commit: str
    url: str
    is_new: bool


def check_token() -> None:
    """Raises HubError when no token is found, or one that no HTTP header can hold (which would print it)."""
    with hub_errors("looking for a token"):
        token = get_token()
    if token is None:
        raise HubError("no token was found; log in with `hf auth login`, or set HF_TOKEN")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise HubError("the token that was found is none: it holds spaces or characters that no token has")


def read_state(repository: str, repo_type: str, revision: str | None) -> HubState:
    """Raises HubError when the Hub cannot be asked. A repository that the token may not see counts as not there."""
    api = HfApi()
    with hub_errors(f"reading {repository}"):
        try:
            info = api.repo_info(repository, repo_type=repo_type)
        except RepositoryNotFoundError as error:
            if error.response.status_code == 401 and get_token() is not None:
                raise
            return HubState(exists=False)
        branch_exists = revision is None
        if revision is not None:
            try:
                info = api.repo_info(repository, repo_type=repo_type, revision=revision)
                branch_exists = True
            except RevisionNotFoundError:
                pass  # it will be made from main, so main's files are what changes
        tree = api.list_repo_tree(repository, repo_type=repo_type, revision=info.sha, recursive=True)
        files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)} if info.sha else {}
        return HubState(True, bool(info.private), branch_exists, info.sha, files)


def compare(contents: Contents, state: HubState) -> Changes:
    """By content, with the digest that the Hub has of each file."""
    new: list[str] = []
    changed: list[str] = []
    same: list[str] = []
    for upload in contents.uploads:
        there = state.files.get(upload.path)
        if there is None:
            new.append(upload.path)
        else:
            (same if _is_equal(upload, there) else changed).append(upload.path)
    others = sorted(state.files.keys() - {upload.path for upload in contents.uploads} - set(KEPT))
    return Changes(tuple(new), tuple(changed), tuple(same), tuple(others))


def _is_equal(upload: Upload, there: RepoFile) -> bool:
    if upload.size != there.size:
        return False
    return upload.git_sha1() == there.blob_id if there.lfs is None else upload.sha256() == there.lfs.sha256


def check_privacy(repository: str, state: HubState, private: bool) -> None:
    """--private must never end in a public repository. Raises HubError."""
    if private and state.exists and not state.private:
        raise HubError(f"{repository} is public, and --private changes no repository that is there; nothing was sent")


def publish(
    contents: Contents,
    repository: str,
    state: HubState,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    delete_others: bool = False,
) -> Published:
    """Create what is missing and commit what differs, in one commit: whole or not at all.

    Args:
        state: as `read_state` has just found it; a commit that came in between is an error.

    Raises:
        HubError: what failed, and what that leaves on the Hub. The same call can be made again.
    """
    check_privacy(repository, state, private)
    changes = compare(contents, state)
    deleted = changes.only_on_hub if delete_others else ()
    if state.branch_exists and state.head and not (changes.new or changes.changed or deleted):
        return Published(state.head, _url(repository, contents.repo_type, state.head), is_new=False)
    sent = {*changes.new, *changes.changed}
    uploads = [upload for upload in contents.uploads if upload.path in sent]
    left = _create(contents, repository, state, private, revision)
    try:
        commit = _commit(contents, repository, state, uploads, deleted, revision, message)
    except HUB_ERRORS as error:
        commit_of_lost_answer = _commit_after(error, contents, repository, state, revision, deleted)
        if commit_of_lost_answer is None:
            raise HubError(
                f"publishing {repository}: {reason(error)}; nothing of it was published{left}; the same command can "
                f"be given again"
            ) from error
        commit = commit_of_lost_answer
    return Published(commit, _url(repository, contents.repo_type, commit), is_new=True)


def _create(contents: Contents, repository: str, state: HubState, private: bool, revision: str | None) -> str:
    """The repository and the branch, if need be. Returns what to say of them if the commit fails."""
    api, left = HfApi(), ""
    if not state.exists:
        sdk = "static" if contents.repo_type == "space" else None
        with hub_errors(f"creating {repository}"):
            api.create_repo(
                repository, repo_type=contents.repo_type, private=private or None, exist_ok=True, space_sdk=sdk
            )
        left = " (the repository was created and is empty)"
    if not state.branch_exists and revision is not None:
        with hub_errors(f"creating the branch {revision} of {repository}{left}"):
            api.create_branch(repository, repo_type=contents.repo_type, branch=revision, exist_ok=True)
        left = left or f" (the branch {revision} was created and is still equal to main)"
    return left


def _commit(
    contents: Contents,
    repository: str,
    state: HubState,
    uploads: list[Upload],
    deleted: Iterable[str],
    revision: str | None,
    message: str | None,
) -> str:
    # A file is read from its path, so that large ones are never held in memory.
    added = [CommitOperationAdd(path_in_repo=upload.path, path_or_fileobj=upload.content) for upload in uploads]
    removed = [CommitOperationDelete(path_in_repo=path, is_folder=False) for path in deleted]
    info = HfApi().create_commit(
        repository,
        [*added, *removed],
        commit_message=message or f"Publish the {contents.kind}",
        repo_type=contents.repo_type,
        revision=revision,
        parent_commit=state.head,
    )
    return info.oid


def _commit_after(
    cause: Exception,
    contents: Contents,
    repository: str,
    before: HubState,
    revision: str | None,
    deleted: Iterable[str],
) -> str | None:
    """The commit, if it arrived and only the answer was lost; None if not.

    Raises HubError when the Hub does not say.
    """
    try:
        state = read_state(repository, contents.repo_type, revision)
    except HubError as error:
        raise HubError(
            f"publishing {repository}: {reason(cause)}; whether the commit arrived is not known ({error}): it did "
            f"whole or not at all, and the same command, given again, sends what is missing"
        ) from cause
    changes = compare(contents, state)
    unfinished = changes.new or changes.changed or set(deleted) & state.files.keys()
    return None if state.head == before.head or unfinished else state.head


def _url(repository: str, repo_type: str, commit: str) -> str:
    prefix = constants.REPO_TYPES_URL_PREFIXES.get(repo_type, "")
    return f"{constants.ENDPOINT}/{prefix}{repository}/commit/{commit}"
