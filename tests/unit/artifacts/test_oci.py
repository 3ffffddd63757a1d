# SPDX-License-Identifier: Apache-2.0
"""Images are valid OCI layouts and the same bytes each time."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.oci import Image, pack

from .conftest import sha


def image(tmp_path: Path) -> Image:
    program = tmp_path / "busybox"
    program.write_bytes(b"\x7fELF")
    return Image(
        "registry.example/busybox:1",
        "amd64",
        {"/bin/busybox": program},
        texts={"/etc/passwd": "root:x:0:0::/:/bin/sh\n"},
        links={"/bin/sh": "busybox"},
        directories={"/tmp": 0o1777},
        command=["/bin/sh"],
    )


def test_every_digest_names_what_it_is(tmp_path: Path) -> None:
    pack(image(tmp_path), tmp_path / "x.oci.tar")
    with tarfile.open(tmp_path / "x.oci.tar") as archive:
        files = {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()}  # type: ignore[union-attr]
    for name, data in files.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{sha(data)}"

    def blob(descriptor: dict[str, Any]) -> bytes:
        data = files["blobs/sha256/" + descriptor["digest"].removeprefix("sha256:")]
        assert len(data) == descriptor["size"]
        return data

    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "registry.example/busybox:1"
    manifest = json.loads(blob(entry))
    config = json.loads(blob(manifest["config"]))
    layer = blob(manifest["layers"][0])
    assert config["rootfs"]["diff_ids"] == [f"sha256:{sha(layer)}"] and config["config"]["Cmd"] == ["/bin/sh"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        modes = {entry.name: (entry.type, entry.mode) for entry in archive}
    assert modes["bin/busybox"] == (tarfile.REGTYPE, 0o755) and modes["tmp"] == (tarfile.DIRTYPE, 0o1777)
    assert modes["bin/sh"][0] == tarfile.SYMTYPE and modes["etc/passwd"][1] == 0o644 and modes["bin"][0] == tarfile.DIRTYPE


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    pack(image(tmp_path), tmp_path / "a")
    pack(image(tmp_path), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
