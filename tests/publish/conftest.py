"""A small hub on 127.0.0.1 that answers the calls of huggingface_hub as the real one does, and remembers them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ionbed.pretrain.config import PretrainConfig

TOKEN = "hf_of_a_user_who_may_write"
READER = "hf_of_a_user_who_may_only_read"


@dataclass
class Repository:
    """What the hub keeps of one repository: on each branch, the file of each path."""

    private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {".gitattributes": b"*"}})
    commits: list[str] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return hashlib.sha1(str(self.commits).encode()).hexdigest()


class Hub(ThreadingHTTPServer):
    """The server; ``calls`` are the methods and paths in their order, ``fails`` maps a pattern of these to a status."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.calls: list[str] = []
        self.fails: dict[str, int] = {}
        self.repositories: dict[str, Repository] = {}
        self.large_files: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def uploads(self) -> int:
        return sum(call.startswith("PUT") for call in self.calls)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, message: str, code: str = "") -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.answer({"error": message}, status, headers)

    def handle_call(self) -> None:
        path = self.path.split("?")[0]
        call = f"{self.command} {path}"
        self.server.calls.append(call)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = self.read_chunks()
        for pattern, status in self.server.fails.items():
            if re.search(pattern, call):
                return self.refuse(status, "made to fail")
        if path.startswith("/storage/"):  # addresses of the storage carry their own signature, no token
            self.server.large_files[path.rsplit("/", 1)[1]] = body
            return self.answer(b"")
        user = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if user and user not in (TOKEN, READER):
            return self.refuse(401, "Invalid credentials in Authorization header")
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self.create(json.loads(body), user)
        found = re.fullmatch(r"/(?:api/models/)?([\w.-]+/[\w-]+?)(?:\.git)?(/.*)?", path)
        repository = self.server.repositories.get(found[1]) if found else None
        if repository is None or (repository.private and not user):
            return self.refuse(404 if user else 401, "Repository not found", "RepoNotFound")
        if self.command == "POST" and user != TOKEN:
            return self.refuse(403, "you need write access")
        return self.in_repository(found[1], repository, found[2] or "", body)

    do_GET = do_HEAD = do_POST = do_PUT = handle_call

    def read_chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def create(self, wanted: dict, user: str) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if not user:
            return self.refuse(401, "Invalid username or password.")
        if user != TOKEN or wanted["organization"] != "me":
            return self.refuse(403, f"You don't have the rights to create a model under {wanted['organization']}")
        address = {"url": f"{self.server.url}/{name}"}
        if name in self.server.repositories:
            return self.answer({**address, "error": "You already created this model repo"}, 409)
        self.server.repositories[name] = Repository(wanted.get("visibility") == "private")
        return self.answer(address)

    def in_repository(self, name: str, repository: Repository, rest: str, body: bytes) -> None:
        known = self.server.large_files
        if found := re.fullmatch(r"/branch/([^/]+)", rest):
            if found[1] in repository.branches:
                return self.refuse(409, "Reference already exists")
            repository.branches[found[1]] = dict(repository.branches["main"])
            return self.answer({})
        if rest.startswith("/preupload/"):
            sizes = {entry["path"]: entry["size"] for entry in json.loads(body)["files"]}
            modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in sizes}
            return self.answer(
                {"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]}
            )
        if rest == "/info/lfs/objects/batch":
            wanted = json.loads(body)["objects"]
            action = {o["oid"]: {"upload": {"href": f"{self.server.url}/storage/{o['oid']}"}} for o in wanted}
            objects = [o | ({} if o["oid"] in known else {"actions": action[o["oid"]]}) for o in wanted]
            return self.answer({"transfer": "basic", "objects": objects})
        if found := re.fullmatch(r"/commit/([^/]+)", rest):
            files = repository.branches[found[1]]
            for line in body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "header":
                    repository.commits.append(value["summary"])
                elif entry["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                else:
                    assert entry["key"] == "lfsFile"
                    files[value["path"]] = known[value["oid"]]
            sha = repository.sha
            return self.answer({"commitUrl": f"{self.server.url}/{name}/commit/{sha}", "commitOid": sha})
        if found := re.fullmatch(r"/resolve/([^/]+)/(.+)", rest):
            files = repository.branches.get(found[1]) or repository.branches["main"]
            if found[2] not in files:
                return self.refuse(404, "Entry not found", "EntryNotFound")
            content = files[found[2]]
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            return self.answer(content, headers={"ETag": etag, "X-Repo-Commit": repository.sha})
        if rest in ("", "/revision/main"):
            siblings = [{"rfilename": path} for path in repository.branches["main"]]
            return self.answer({"id": name, "modelId": name, "sha": repository.sha, "private": repository.private,
                                "siblings": siblings, "tags": [], "downloads": 0, "likes": 0})  # fmt: skip
        return self.refuse(404, f"no such call: {rest}")


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def trained(store: Path, split: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a very short pretraining run on the small store, which names no licences."""
    from ionbed.configs.loading import load_config
    from ionbed.pretrain.run import pretrain

    output = tmp_path_factory.mktemp("published") / "run"
    sets = ["model.hidden_size=32", "model.num_layers=1", "model.num_heads=4", "model.num_mz_wavelengths=16",
            "training.steps=3", "training.warmup_steps=1", "training.batch_tokens=400", "training.threads=1",
            "training.log_every=1", f"data.store={store}", f"data.split={split}", f"output={output}"]  # fmt: skip
    pretrain(load_config(PretrainConfig, "pretrain-tiny", sets))
    return output
