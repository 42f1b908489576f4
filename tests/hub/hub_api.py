"""What the Hub's API answers, over a store of repositories in memory: the routes of the fake Hub.

Models, data sets and Spaces, public or private, with branches, commits and large files by the "basic" LFS transfer.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

WRITE_TOKEN, READ_TOKEN = "hf_writeTokenOfTheTests", "hf_readTokenOfTheTests"
LFS_SUFFIXES = (".safetensors", ".parquet", ".arrow", ".png")
TYPES = {"models": "model", "datasets": "dataset", "spaces": "space"}
NO_COMMIT = "0" * 40
Tree = dict[str, bytes]


@dataclass
class Repository:
    """commits: {sha: (files, message)}; branches: {name: sha}."""

    private: bool
    commits: dict[str, tuple[Tree, str]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: Tree, message: str) -> str:
        state = repr(
            (len(self.commits), branch, message, sorted((p, hashlib.sha1(c).hexdigest()) for p, c in files.items()))
        )
        sha = hashlib.sha1(state.encode()).hexdigest()
        self.commits[sha] = (files, message)
        self.branches[branch] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)


@dataclass
class Reply:
    status: int = 200
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Store:
    """All that a Hub holds. unknown: requests that no route knows."""

    url: str
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    large_files: dict[str, bytes] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def refusal(status: int, code: str, text: str) -> Reply:
    return Reply(status, {"error": text}, {"X-Error-Code": code, "X-Error-Message": text})


NOT_FOUND = refusal(404, "RepoNotFound", "Repository not found")
NO_REVISION = refusal(404, "RevisionNotFound", "Invalid rev id")
NO_ENTRY = refusal(404, "EntryNotFound", "Entry not found")


def file_entry(path: str, content: bytes) -> dict[str, Any]:
    git_name = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry = {"type": "file", "path": path, "size": len(content), "oid": git_name}
    if path.endswith(LFS_SUFFIXES):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


@dataclass
class Request:
    method: str
    path: re.Match[str]
    query: dict[str, list[str]]
    headers: Any
    body: bytes
    token: str | None

    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    def text(self, name: str) -> str:
        return self.path.groupdict().get(name) or ""

    @property
    def repo_type(self) -> str:
        return TYPES[self.text("type").strip("/") or "models"]


def _may_write(request: Request) -> Reply | None:
    if request.token is None:
        return refusal(401, "", "Invalid username or password.")
    if request.token != WRITE_TOKEN:
        return refusal(403, "", "You don't have the rights to write here")
    return None


def create(store: Store, request: Request) -> Reply:
    wanted = request.json()
    repo_type, name = wanted.get("type", "model"), f"{wanted.get('organization') or 'org'}/{wanted['name']}"
    if (refused := _may_write(request)) is not None:
        return refused
    prefix = "" if repo_type == "model" else f"{repo_type}s/"
    if (repo_type, name) in store.repositories:
        return Reply(409, {"error": "You already created this repo", "url": f"{store.url}/{prefix}{name}"})
    if repo_type == "space" and "sdk" not in wanted:
        return refusal(400, "", "A Space needs an sdk")
    repository = Repository(private=wanted.get("visibility") == "private" or bool(wanted.get("private")))
    repository.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
    store.repositories[repo_type, name] = repository
    return Reply(body={"url": f"{store.url}/{prefix}{name}", "name": name, "id": "0" * 24})


def validate_yaml(store: Store, request: Request) -> Reply:
    wanted = request.json()
    found = re.match(r"---\n(.*?)\n---", wanted["content"], re.DOTALL)
    values = yaml.safe_load(found[1]) if found else {}
    errors = [{"message": '"sdk" is required'}] if wanted["repoType"] == "space" and "sdk" not in values else []
    return Reply(400 if errors else 200, {"errors": errors, "warnings": []})


def repository_api(store: Store, request: Request) -> Reply:
    """/api/{type}s/{org}/{name}/{what}/{revision}/{rest}"""
    repository = store.repositories.get((request.repo_type, request.text("id")))
    if repository is None or (repository.private and request.token is None):
        return NOT_FOUND if request.token else refusal(401, "RepoNotFound", "Repository not found")
    what, revision = request.text("what") or "revision", request.text("revision") or "main"
    if what == "branch":
        return _make_branch(repository, request, revision)
    sha = repository.resolve(revision)
    if sha is None:
        return NO_REVISION
    return REPOSITORY_ROUTES[what](store, repository, sha, request)


def _make_branch(repository: Repository, request: Request, name: str) -> Reply:
    if (refused := _may_write(request)) is not None:
        return refused
    if name in repository.branches:
        return Reply(409, {"error": "Reference already exists"})
    repository.branches[name] = repository.branches["main"]
    return Reply()


def _info(store: Store, repository: Repository, sha: str, request: Request) -> Reply:
    siblings = [{"rfilename": path} for path in sorted(repository.commits[sha][0])]
    name, time = request.text("id"), "2026-01-01T00:00:00.000Z"
    facts = {"id": name, "modelId": name, "author": name.split("/")[0], "sha": sha, "private": repository.private}
    facts |= {"_id": "0" * 24, "gated": False, "disabled": False, "tags": [], "downloads": 0, "likes": 0}
    return Reply(body=facts | {"siblings": siblings, "lastModified": time, "createdAt": time})


def _tree(store: Store, repository: Repository, sha: str, request: Request) -> Reply:
    files, folder = repository.commits[sha][0], request.text("rest").strip("/")
    prefix = f"{folder}/" if folder else ""
    inside = {path: content for path, content in sorted(files.items()) if path.startswith(prefix)}
    if folder and not inside:
        return NO_ENTRY
    entries: dict[str, dict[str, Any]] = {}
    for path, content in inside.items():
        *parents, _ = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parents) + 1):
            parent = prefix + "/".join(parents[:depth])
            entries.setdefault(parent, {"type": "directory", "path": parent, "oid": NO_COMMIT, "size": 0})
        entries[path] = file_entry(path, content)
    if request.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
        entries = {path: entry for path, entry in entries.items() if "/" not in path.removeprefix(prefix)}
    return Reply(body=list(entries.values()))


def _paths_info(store: Store, repository: Repository, sha: str, request: Request) -> Reply:
    files = repository.commits[sha][0]
    is_json = "json" in (request.headers.get("Content-Type") or "")
    wanted = request.json()["paths"] if is_json else parse_qs(request.body.decode()).get("paths", [])
    entries = []
    for path in wanted if isinstance(wanted, list) else [wanted]:
        if path in files:
            entries.append(file_entry(path, files[path]))
        elif any(other.startswith(f"{path.rstrip('/')}/") for other in files):
            entries.append({"type": "directory", "path": path, "oid": NO_COMMIT, "size": 0})
    return Reply(body=entries)


def _preupload(store: Store, repository: Repository, sha: str, request: Request) -> Reply:
    if (refused := _may_write(request)) is not None:
        return refused
    files = repository.commits[sha][0]
    answers = []
    for wanted in request.json()["files"]:
        path = wanted["path"]
        mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
        oid = file_entry(path, files[path])["oid"] if path in files else None
        answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return Reply(body={"files": answers})


def _commit(store: Store, repository: Repository, sha: str, request: Request) -> Reply:
    if (refused := _may_write(request)) is not None:
        return refused
    files, header = dict(repository.commits[sha][0]), {}
    for line in request.body.splitlines():
        operation = json.loads(line)
        value = operation["value"]
        if operation["key"] == "header":
            header = value
        elif operation["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif operation["key"] == "lfsFile":
            if value["oid"] not in store.large_files:
                return refusal(400, "", f"{value['path']}: the large file was not uploaded")
            files[value["path"]] = store.large_files[value["oid"]]
        elif operation["key"] == "deletedFile":
            del files[value["path"]]
        else:
            return refusal(400, "", f"unknown operation {operation['key']}")
    if header.get("parentCommit", sha) != sha:
        return refusal(412, "", "A commit has happened since. Please refresh and try again.")
    new = repository.commit(request.text("revision"), files, header["summary"])
    url = f"{store.url}/{request.text('id')}/commit/{new}"
    return Reply(body={"success": True, "commitOid": new, "commitUrl": url, "hookOutput": ""})


def large_files_batch(store: Store, request: Request) -> Reply:
    if (refused := _may_write(request)) is not None:
        return refused
    answers = []
    for wanted in request.json()["objects"]:
        answer = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in store.large_files:
            answer["actions"] = {"upload": {"href": f"{store.url}/_lfs/{wanted['oid']}"}}
        answers.append(answer)
    return Reply(body={"transfer": "basic", "objects": answers})


def large_file(store: Store, request: Request) -> Reply:
    if hashlib.sha256(request.body).hexdigest() != request.text("oid"):
        return refusal(400, "", "this is another content")
    store.large_files[request.text("oid")] = request.body
    return Reply()


def download(store: Store, request: Request) -> Reply:
    repository = store.repositories.get((request.repo_type, request.text("id")))
    if repository is None or (repository.private and request.token is None):
        return NOT_FOUND if request.token else refusal(401, "RepoNotFound", "Repository not found")
    sha = repository.resolve(request.text("revision"))
    if sha is None:
        return NO_REVISION
    content = repository.commits[sha][0].get(request.text("path"))
    if content is None:
        return Reply(404, b"Entry not found", NO_ENTRY.headers | {"X-Repo-Commit": sha})
    entry = file_entry(request.text("path"), content)
    name = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
    headers = {"X-Repo-Commit": sha, "ETag": f'"{name}"', "Accept-Ranges": "bytes"}
    if "lfs" in entry:
        headers |= {"X-Linked-Etag": f'"{name}"', "X-Linked-Size": str(len(content))}
    part = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range") or "")
    if part is not None:
        first, last = int(part[1]), min(int(part[2] or len(content) - 1), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return Reply(206, content[first : last + 1], headers)
    return Reply(200, content, headers)


TYPE, ID, REVISION = r"(?P<type>models|datasets|spaces)", r"(?P<id>[^/]+/[^/]+?)", r"(?P<revision>[^/]+)"
PREFIX = r"/(?P<type>datasets/|spaces/)?"
ROUTES: list[tuple[str, Callable[[Store, Request], Reply]]] = [
    (r"/api/repos/create", create),
    (r"/api/validate-yaml", validate_yaml),
    (rf"/api/{TYPE}/{ID}(/(?P<what>revision|tree|paths-info|preupload|commit|branch)/{REVISION}(?P<rest>/.*)?)?",
     repository_api),
    (rf"{PREFIX}{ID}\.git/info/lfs/objects/batch", large_files_batch),
    (r"/_lfs/(?P<oid>[0-9a-f]{64})", large_file),
    (rf"{PREFIX}{ID}/resolve/{REVISION}/(?P<path>.+)", download),
]  # fmt: skip
REPOSITORY_ROUTES: dict[str, Callable[[Store, Repository, str, Request], Reply]] = {
    "revision": _info,
    "tree": _tree,
    "paths-info": _paths_info,
    "preupload": _preupload,
    "commit": _commit,
}


def answer(store: Store, method: str, target: str, headers: Any, body: bytes) -> Reply:
    """What the Hub says to this request."""
    url = urlsplit(target)
    path = unquote(url.path)
    token = (headers.get("Authorization") or "").removeprefix("Bearer ") or None
    if token not in (None, WRITE_TOKEN, READ_TOKEN):
        return refusal(401, "", "Invalid credentials in Authorization header")
    for pattern, respond in ROUTES:
        found = re.fullmatch(pattern, path)
        if found is not None:
            return respond(store, Request(method, found, parse_qs(url.query), headers, body, token))
    store.unknown.append(f"{method} {path}")
    return Reply(404, {"error": f"the fake Hub does not know {path}"})
