# SPDX-License-Identifier: Apache-2.0
"""Small container images without a container engine: one layer, packed as an OCI image layout in a tar file.

Format: https://github.com/opencontainers/image-spec (image-layout.md, config.md). ``manifest.json`` is what ``docker load`` reads.
The same input gives the same bytes: times are zero, owners are root, names are sorted, the layer is not compressed.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Image:
    """What an image holds.

    ``programs`` maps a path in the image to a file here (mode 0755), ``texts`` a path to its content (mode 0644), ``links`` a path to what
    it points at, ``directories`` a path to its mode. Parents are made (mode 0755).
    """

    reference: str
    architecture: str
    programs: Mapping[str, Path]
    texts: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    directories: Mapping[str, int] = field(default_factory=dict)
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def pack(image: Image, target: Path) -> None:
    """Write the image as an OCI layout tar to ``target``."""
    layer = _layer(image)
    config = _json(
        {
            "architecture": image.architecture,
            "os": "linux",
            "config": {
                key: value
                for key, value in {
                    "Entrypoint": list(image.entrypoint),
                    "Cmd": list(image.command),
                    "User": image.user,
                    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                    "Labels": dict(image.labels),
                }.items()
                if value
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha(layer)}"]},
        }
    )
    manifest = _json({"schemaVersion": 2, "mediaType": MANIFEST, "config": _descriptor(CONFIG, config), "layers": [_descriptor(LAYER, layer)]})
    entry = _descriptor(MANIFEST, manifest) | {
        "platform": {"architecture": image.architecture, "os": "linux"},
        "annotations": {"io.containerd.image.name": image.reference, "org.opencontainers.image.ref.name": image.reference},
    }
    files = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}),
        "manifest.json": _json([{"Config": f"blobs/sha256/{_sha(config)}", "RepoTags": [image.reference], "Layers": [f"blobs/sha256/{_sha(layer)}"]}]),
    } | {f"blobs/sha256/{_sha(data)}": data for data in (config, layer, manifest)}
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("blobs", "blobs/sha256"):
            archive.addfile(_entry(name, tarfile.DIRTYPE, 0o755))
        for name, data in sorted(files.items()):
            _add(archive, name, data, 0o644)


def _layer(image: Image) -> bytes:
    directories = {_inside(path): mode for path, mode in image.directories.items()}
    for path in [*image.programs, *image.texts, *image.links, *image.directories]:
        for parent in Path(_inside(path)).parents:
            if str(parent) != ".":
                directories.setdefault(str(parent), 0o755)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, mode in sorted(directories.items()):
            archive.addfile(_entry(name, tarfile.DIRTYPE, mode))
        for path, source in sorted(image.programs.items()):
            _add(archive, _inside(path), source.read_bytes(), 0o755)
        for path, text in sorted(image.texts.items()):
            _add(archive, _inside(path), text.encode(), 0o644)
        for path, to in sorted(image.links.items()):
            entry = _entry(_inside(path), tarfile.SYMTYPE, 0o777)
            entry.linkname = to
            archive.addfile(entry)
    return buffer.getvalue()


def _inside(path: str) -> str:
    return path.lstrip("/")


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.uname, entry.gname = kind, mode, "root", "root"
    return entry


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = _entry(name, tarfile.REGTYPE, mode)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _json(data: Any) -> bytes:
    return json.dumps(data, separators=(",", ":"), sort_keys=True).encode()


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _descriptor(kind: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{_sha(data)}", "size": len(data)}
