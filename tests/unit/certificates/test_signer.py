# SPDX-License-Identifier: Apache-2.0
"""The one authority whose key a component needs."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.ashlar.stack.plugins.plugin_utils import pki


def test_a_signer_is_its_authority_with_its_key(tmp_path: Path) -> None:
    credentials = pki.Credentials(tmp_path / "credentials")
    spec = pki.parse_spec({"component": "kubernetes_control", "name": "kubelet_signer", "kind": "signer", "authority": "kubelet"})
    first, second = credentials.signer(spec), credentials.signer(spec)
    assert first.certificate == credentials.authority("kubelet").bundle
    assert "PRIVATE KEY" in first.key
    assert first.key == second.key
    assert first.changed
    assert not pki.Credentials(tmp_path / "credentials").signer(spec).changed
