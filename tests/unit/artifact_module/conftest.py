# SPDX-License-Identifier: Apache-2.0
"""A tiny store on the controller's side, and hosts that are temporary roots."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ashlar.stack.plugins.action import artifact as action
from ansible_collections.ashlar.stack.plugins.module_utils.artifact import install as artifact
from ansible_collections.ashlar.stack.plugins.modules import artifact as module

ARCHITECTURE = artifact.ARCHITECTURES[os.uname().machine]


class TinyStore:
    """A store as the builder makes it: blobs by sha256, index files beside them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, name: str, version: str, files: dict[str, str], platform: str = ARCHITECTURE, modes: dict[str, str] | None = None) -> None:
        entries = []
        for path, content in files.items():
            sha256 = hashlib.sha256(content.encode()).hexdigest()
            blob = self.root / "sha256" / sha256[:2] / sha256
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.write_text(content)
            entries.append({"path": path, "sha256": sha256, "size": len(content), "mode": (modes or {}).get(path, "0755")})
        index = self.root / "index" / name / version / f"{platform}.json"
        index.parent.mkdir(parents=True, exist_ok=True)
        index.write_text(json.dumps({"name": name, "version": version, "architecture": platform, "source": "go", "files": entries}))


class Machine:
    """One host below a root, and the controller's side of the steps without any connection."""

    def __init__(self, root: Path, store: TinyStore) -> None:
        self.root = root
        self.store = store

    def host(self) -> artifact.Host:
        return artifact.Host(str(self.root), margin=0)

    def catalogue(self, **versions: str) -> action.StoredArtifacts:
        return action.read_stored(self.store.root, list(versions), versions)

    def inspect(self, check: bool = False, options: module.Options | None = None, **versions: str) -> dict[str, Any]:
        return module.inspect(self.host(), self.catalogue(**versions).want(), options or module.Options(), check)

    def upload(self, names: list[str]) -> None:
        incoming = self.root / "opt/ashlar/.store/incoming"
        for sha256 in names:
            (incoming / sha256).write_bytes((self.store.root / "sha256" / sha256[:2] / sha256).read_bytes())

    def indexes(self, seen: dict[str, Any], catalogue: action.StoredArtifacts) -> list[dict[str, Any]]:
        chosen = [catalogue.choose(name, seen["architecture"], seen["codename"]) for name in seen["lacking"]]
        return [{"name": i.name, "version": i.version, "digest": action.digest(i), "files": [vars(f) for f in i.files]} for i in chosen]

    def bring(self, options: module.Options | None = None, source: dict[str, Any] | None = None, send: bool = True, **versions: str) -> dict[str, Any]:
        """All steps of one run; the result of the last."""
        options = options or module.Options()
        seen = self.inspect(options=options, **versions)  # type: ignore[arg-type]
        if not seen["lacking"]:
            return seen
        catalogue = self.catalogue(**versions)
        raw = self.indexes(seen, catalogue)
        if send:
            blobs = {f["sha256"]: f["size"] for entry in raw for f in entry["files"]}
            self.upload(module.seed(self.host(), blobs, "", None)["missing"])
        return {**seen, **module.install(self.host(), raw, versions, source or {}, options)}

    def path(self, path: str) -> Path:
        return self.root / "opt/ashlar" / path

    def read(self, path: str) -> str:
        return self.path(path).read_text()


@pytest.fixture
def store(tmp_path: Path) -> TinyStore:
    tiny = TinyStore(tmp_path / "store")
    tiny.add("etcd", "1.0.0", {"etcd": "etcd one", "etcdctl": "etcdctl one"})
    tiny.add("etcd", "1.1.0", {"etcd": "etcd two", "etcdctl": "etcdctl one"})
    tiny.add("etcd", "1.2.0", {"etcd": "etcd three", "etcdctl": "etcdctl one"})
    tiny.add("flannel", "0.9.0", {"flanneld": "flannel", "share/licence": "text"}, modes={"share/licence": "0644"})
    return tiny


@pytest.fixture
def machine(tmp_path: Path, store: TinyStore) -> Machine:
    root = tmp_path / "host"
    (root / "etc").mkdir(parents=True)
    (root / "etc/os-release").write_text('NAME=Debian\nVERSION_CODENAME="trixie"\n')
    return Machine(root, store)
