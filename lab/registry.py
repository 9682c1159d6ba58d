"""Putting an image into a registry by the distribution protocol, without an engine in between."""

from __future__ import annotations

import hashlib
import http.client
import json
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from lab.layers import Layer
from lab.run import LabError

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
_LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_TIMEOUT = 120
# Status, headers and body.
Answer = tuple[int, Mapping[str, str], bytes]


class Repository:
    """One repository of a registry that speaks plain HTTP."""

    def __init__(self, registry: str, name: str) -> None:
        self._registry = registry
        self._name = name

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | BinaryIO | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection(self._registry, timeout=_TIMEOUT)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        except OSError as error:
            raise LabError(f"the registry {self._registry} doesn't answer: {error}") from error
        finally:
            connection.close()

    def _must(self, expected: int, what: str, answer: Answer) -> Mapping[str, str]:
        status, headers, body = answer
        if status != expected:
            raise LabError(f"the registry refused {what}: {status} {body[:300]!r}")
        return headers

    def has_blob(self, digest: str) -> bool:
        """Whether a layer or configuration is there already."""
        return self._ask("HEAD", f"/v2/{self._name}/blobs/{digest}")[0] == 200

    def manifest(self, tag: str) -> dict[str, Any] | None:
        """The manifest under a tag, or None."""
        status, _, body = self._ask("GET", f"/v2/{self._name}/manifests/{tag}", headers={"Accept": MANIFEST_TYPE})
        found: dict[str, Any] | None = json.loads(body) if status == 200 else None
        return found

    def put_blob(self, digest: str, size: int, body: bytes | BinaryIO) -> None:
        """Upload a blob of `size` bytes in one piece, unless it is there."""
        if self.has_blob(digest):
            return
        headers = self._must(202, "an upload", self._ask("POST", f"/v2/{self._name}/blobs/uploads/"))
        place = urllib.parse.urlsplit(headers["Location"])
        query = f"{place.query}&digest={urllib.parse.quote(digest)}".lstrip("&")
        sending = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        self._must(201, f"the blob {digest}", self._ask("PUT", f"{place.path}?{query}", body, sending))

    def put_file(self, layer: Layer, file: Path) -> None:
        """Upload a layer from a file."""
        with file.open("rb") as body:
            self.put_blob(layer.digest, layer.size, body)

    def put_image(self, tag: str, layers: list[Layer], config: Mapping[str, Any]) -> bool:
        """Publish an image of layers that are there already.

        Returns False when that very image is published already. `config` is the image's
        configuration, without its rootfs.
        """
        whole = {
            **config,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
        blob = json.dumps(whole, sort_keys=True).encode()
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        self.put_blob(digest, len(blob), blob)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": _CONFIG_TYPE, "size": len(blob), "digest": digest},
            "layers": [{"mediaType": _LAYER_TYPE, "size": layer.size, "digest": layer.digest} for layer in layers],
        }
        if self.manifest(tag) == manifest:
            return False
        answer = self._ask(
            "PUT",
            f"/v2/{self._name}/manifests/{tag}",
            json.dumps(manifest, sort_keys=True).encode(),
            {"Content-Type": MANIFEST_TYPE},
        )
        self._must(201, f"the manifest {tag}", answer)
        return True
