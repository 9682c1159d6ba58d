"""A model hub: serves model files as the Hugging Face hub's HTTP API does. It stands alone.

`python3 hub.py --listen ADDRESS:PORT FOLDER` serves the model `org/name` from `FOLDER/org/name`.
What is there:

- `GET /api/models/{id}` and `/api/models/{id}/revision/{revision}`: the model's commit and its
  files
- `GET /api/models/{id}/tree/{revision}`: the files with size and object id
- `HEAD` and `GET /{id}/resolve/{revision}/{path}`: a file, whole or from an offset (`Range`)

A model has one commit, a hash of its files, and one branch, `main`. Errors carry the hub's
`X-Error-Code`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import sys
import urllib.parse
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# As on the hub, big binary files are kept by their sha256 (LFS), the others by their git blob id.
_LFS_SUFFIXES = {".safetensors", ".bin", ".gguf"}
_LAST_MODIFIED = "2025-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class ModelFile:
    """One file of a model."""

    path: Path
    name: str

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size

    @property
    def is_lfs(self) -> bool:
        """Whether the hub would keep it in its large file storage."""
        return self.path.suffix in _LFS_SUFFIXES

    @cached_property
    def sha256(self) -> str:
        """Digest of the content."""
        with self.path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()

    @cached_property
    def blob_id(self) -> str:
        """Git's object id of the content."""
        content = self.path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

    @property
    def etag(self) -> str:
        """What a client names its copy after."""
        return self.sha256 if self.is_lfs else self.blob_id

    def entry(self) -> dict[str, Any]:
        """The file as the tree API shows it."""
        shown: dict[str, Any] = {
            "type": "file",
            "oid": self.blob_id,
            "size": self.size,
            "path": self.name,
        }
        if self.is_lfs:
            shown["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": 134}
        return shown


class Model:
    """A model's files, read once."""

    def __init__(self, identifier: str, folder: Path) -> None:
        self.identifier = identifier
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        self.files = {str(path.relative_to(folder)): ModelFile(path, str(path.relative_to(folder))) for path in found}
        listing = "\n".join(f"{file.blob_id} {name}" for name, file in self.files.items())
        self.commit = hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest()

    def knows(self, revision: str) -> bool:
        """Whether a revision is the branch or the commit."""
        return revision in ("main", self.commit)

    def info(self) -> dict[str, Any]:
        """The model as the model API shows it."""
        return {
            "_id": self.commit[:24],
            "id": self.identifier,
            "modelId": self.identifier,
            "author": self.identifier.partition("/")[0],
            "sha": self.commit,
            "lastModified": _LAST_MODIFIED,
            "createdAt": _LAST_MODIFIED,
            "private": False,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [{"rfilename": name} for name in self.files],
        }


def load(root: Path) -> dict[str, Model]:
    """All models below a folder by id."""
    folders = sorted(folder for folder in root.glob("*/*") if folder.is_dir())
    return {
        f"{folder.parent.name}/{folder.name}": Model(f"{folder.parent.name}/{folder.name}", folder)
        for folder in folders
    }


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte that a Range header asks of `size` bytes.

    A missing or unreadable header asks for all. None means that it asks for nothing there is.
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if match is None or match.group(0) == "bytes=-":
        return 0, size - 1
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size - 1
    else:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
    return (start, end) if start <= end else None


class RefusalError(Exception):
    """An answer that says no, with the hub's error code."""

    def __init__(self, status: HTTPStatus, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_HEAD(self) -> None:
        """Headers of an answer."""
        self._answer(with_body=False)

    def do_GET(self) -> None:
        """An answer."""
        self._answer(with_body=True)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (named by the base class)
        """One line on standard error, without the date that the journal adds."""
        print(f"{self.address_string()} {format % args}", file=sys.stderr, flush=True)

    def _answer(self, *, with_body: bool) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        try:
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?/?", path):
                self._describe(*match.groups(), with_body=with_body)
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._resolve(*match.groups(), with_body=with_body)
            else:
                raise RefusalError(HTTPStatus.NOT_FOUND, "EntryNotFound", f"there is nothing at {path}")
        except RefusalError as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": str(refusal)}
            self._send_json({"error": str(refusal)}, refusal.status, headers, with_body=with_body)

    def _model(self, identifier: str, revision: str | None) -> Model:
        model = self.server.models.get(identifier)
        if model is None:
            raise RefusalError(HTTPStatus.NOT_FOUND, "RepoNotFound", f"no model {identifier}")
        if revision is not None and not model.knows(revision):
            raise RefusalError(HTTPStatus.NOT_FOUND, "RevisionNotFound", f"no revision {revision} of {identifier}")
        return model

    def _describe(self, identifier: str, what: str | None, revision: str | None, *, with_body: bool) -> None:
        model = self._model(identifier, revision)
        found = [file.entry() for file in model.files.values()] if what == "tree" else model.info()
        self._send_json(found, HTTPStatus.OK, {"X-Repo-Commit": model.commit}, with_body=with_body)

    def _resolve(self, identifier: str, revision: str, name: str, *, with_body: bool) -> None:
        model = self._model(identifier, revision)
        commit = {"X-Repo-Commit": model.commit}
        file = model.files.get(name)
        if file is None:
            raise RefusalError(HTTPStatus.NOT_FOUND, "EntryNotFound", f"no file {name} in {identifier}")
        headers = {**commit, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if file.is_lfs:
            headers |= {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(file.size)}
        asked = self.headers.get("Range")
        part = parse_range(asked, file.size)
        if part is None and file.size:
            status, start, length = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, 0
            headers["Content-Range"] = f"bytes */{file.size}"
        else:
            start, end = part or (0, -1)
            length = end - start + 1
            status = HTTPStatus.PARTIAL_CONTENT if length < file.size else HTTPStatus.OK
            if status is HTTPStatus.PARTIAL_CONTENT:
                headers["Content-Range"] = f"bytes {start}-{end}/{file.size}"
        self._send_headers(status, {**headers, "Content-Type": "application/octet-stream"}, length)
        if with_body and length:
            with file.path.open("rb") as content:
                content.seek(start)
                # A part ends at the file's end, unless the client asked for less than that.
                if start + length == file.size:
                    shutil.copyfileobj(content, self.wfile, 1 << 20)
                else:
                    self.wfile.write(content.read(length))

    def _send_json(self, value: Any, status: HTTPStatus, headers: dict[str, str], *, with_body: bool) -> None:
        body = json.dumps(value).encode()
        self._send_headers(status, {**headers, "Content-Type": "application/json; charset=utf-8"}, len(body))
        if with_body:
            self.wfile.write(body)

    def _send_headers(self, status: HTTPStatus, headers: dict[str, str], length: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()


class HubServer(ThreadingHTTPServer):
    """The server with its models."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], root: Path) -> None:
        self.models = load(root)
        super().__init__(address, Handler)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="Serve model files as the Hugging Face hub does.")
    parser.add_argument("--listen", default="127.0.0.1:8080", metavar="ADDRESS:PORT")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    address, _, port = options.listen.rpartition(":")
    HubServer((address, int(port)), options.folder).serve_forever()


if __name__ == "__main__":
    main()
