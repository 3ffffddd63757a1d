# SPDX-License-Identifier: Apache-2.0
"""What the authorities of a site issue, when they issue again, and what they say when the folder is broken."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils import pki
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.verification import PolicyBuilder, Store

NOW = datetime.datetime(2026, 11, 21, 10, 0, tzinfo=datetime.timezone.utc)
NODE = Path("nodes/node1/etcd")


def spec(**changes: Any) -> pki.Spec:
    raw: dict[str, Any] = {
        "component": "etcd",
        "name": "server",
        "authority": "etcd",
        "usages": ["server", "client"],
        "common_name": "node1",
        "dns": ["localhost", "node1"],
        "addresses": ["127.0.0.1", "10.0.0.1"],
        "owner": "etcd",
    }
    return pki.parse_spec({**raw, **changes})


def folder(tmp_path: Path, now: datetime.datetime = NOW, **changes: Any) -> pki.Credentials:
    return pki.Credentials(tmp_path / "credentials", site="lab", now=now, **changes)


def parse(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(text.encode())


class TestSpec:
    def test_order_and_duplicates_do_not_matter(self) -> None:
        assert spec(dns=["node1", "localhost", "LOCALHOST"]) == spec()
        assert spec(addresses=["10.0.0.1", "127.0.0.1", "10.0.0.1"]) == spec()

    def test_templates_may_give_a_string_nested_lists_or_nothing(self) -> None:
        assert spec(dns="node1").dns == ("node1",)
        assert spec(addresses=["127.0.0.1", ["10.0.0.1", "", None]]) == spec()

    def test_the_name_stands_for_a_missing_common_name(self) -> None:
        assert spec(common_name=None).common_name == "server"

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"usages": ["sign"]}, "certificate etcd/server: usages must be one or both of client, server, found ['sign']"),
            ({"usages": []}, "usages must be one or both"),
            ({"authority": None}, "authority must name a CA"),
            ({"authority": "../site"}, "authority must name a CA"),
            ({"component": "../etc"}, "component must be a word"),
            ({"name": "a/b"}, "name must be a word"),
            ({"kind": "secret"}, "kind is 'secret'; allowed are certificate"),
            ({"owner": "no such:user"}, "owner 'no such:user' is not the name of a system user"),
            ({"dns": ["bad name"]}, "dns 'bad name' is not a DNS name"),
            ({"addresses": ["node1"]}, "addresses 'node1' is not an IP address; names belong into dns"),
            ({"dns": [], "addresses": []}, "a server certificate needs dns or addresses"),
            ({"common_name": "x" * 65}, "has 65 characters; a name in a certificate has at most 64"),
            ({"dns": {"a": 1}}, "dns: a list of strings is expected"),
            ({"sans": ["a"]}, "unknown option 'sans'; allowed are addresses, authority"),
        ],
    )
    def test_what_is_wrong_is_said(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(pki.CertificatesError) as caught:
            spec(**changes)
        assert message in str(caught.value)

    def test_one_file_is_asked_for_once(self) -> None:
        raw = {"component": "a", "name": "b", "kind": "keypair"}
        with pytest.raises(pki.CertificatesError, match="a/b is asked for twice"):
            pki.parse_specs([raw, raw])

    def test_a_list_is_expected(self) -> None:
        with pytest.raises(pki.CertificatesError, match="a list is expected"):
            pki.parse_specs("{{ node_certificates }}")
        with pytest.raises(pki.CertificatesError, match="each entry is a dictionary"):
            pki.parse_specs(["etcd"])


class TestAuthority:
    def test_it_may_sign_leaf_certificates_only(self, tmp_path: Path) -> None:
        authority = folder(tmp_path).authority("etcd")
        constraints = authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
        assert isinstance(authority.key, ec.EllipticCurvePrivateKey) and authority.key.curve.name == "secp256r1"
        assert authority.certificate.subject.rfc4514_string() == "CN=lab etcd authority"
        assert authority.certificate.not_valid_after_utc - NOW == datetime.timedelta(days=3650)
        assert authority.created

    def test_it_is_made_once(self, tmp_path: Path) -> None:
        first, second = folder(tmp_path).authority("etcd"), folder(tmp_path).authority("etcd")
        assert first.bundle == second.bundle and not second.created

    def test_authorities_are_separate(self, tmp_path: Path) -> None:
        credentials = folder(tmp_path)
        assert credentials.authority("etcd").bundle != credentials.authority("kubernetes").bundle

    def test_only_the_owner_reads_the_folder(self, tmp_path: Path) -> None:
        credentials = folder(tmp_path)
        credentials.certificate(spec(), NODE)
        credentials.keypair(pki.parse_spec({"component": "a", "name": "b", "kind": "keypair"}))
        for path in [credentials.root, *credentials.root.rglob("*")]:
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path

    def test_an_interrupted_creation_goes_on_with_the_key(self, tmp_path: Path) -> None:
        made = folder(tmp_path).authority("etcd")
        (tmp_path / "credentials/authorities/etcd/ca.crt").unlink()
        again = folder(tmp_path).authority("etcd")
        assert again.certificate.public_key() == made.certificate.public_key()

    def test_forks_make_one_authority_between_them(self, tmp_path: Path) -> None:
        with multiprocessing.get_context("fork").Pool(8) as pool:
            bundles = pool.map(_bundle, [str(tmp_path)] * 16)
        assert len(set(bundles)) == 1

    def test_a_bundle_is_passed_on_whole_and_the_certificate_of_the_key_signs(self, tmp_path: Path) -> None:
        credentials = folder(tmp_path)
        old = folder(tmp_path / "old").authority("etcd").bundle
        new = credentials.authority("etcd").bundle
        (credentials.root / "authorities/etcd/ca.crt").write_text(old + new)
        assert folder(tmp_path).authority("etcd").bundle == old + new
        assert folder(tmp_path).authority("etcd").certificate == parse(new)
        assert not folder(tmp_path).certificate(spec(), NODE).facts["issuer"] == ""


def _bundle(path: str) -> str:
    return folder(Path(path)).authority("etcd").bundle


class TestBrokenFolder:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        credentials = folder(tmp_path)
        credentials.certificate(spec(), NODE)
        return credentials.root

    def fails(self, tmp_path: Path, now: datetime.datetime = NOW) -> str:
        with pytest.raises(pki.CertificatesError) as caught:
            folder(tmp_path, now).certificate(spec(), NODE)
        return str(caught.value)

    def test_a_lost_key(self, tmp_path: Path, root: Path) -> None:
        (root / "authorities/etcd/ca.key").unlink()
        message = self.fails(tmp_path)
        assert "authorities/etcd/ca.key is missing while" in message and "backup" in message

    def test_a_key_that_others_can_read(self, tmp_path: Path, root: Path) -> None:
        (root / "authorities/etcd/ca.key").chmod(0o644)
        message = self.fails(tmp_path)
        assert "has mode 0644" in message and "chmod 600" in message

    def test_a_damaged_certificate_and_key(self, tmp_path: Path, root: Path) -> None:
        (root / "authorities/etcd/ca.crt").write_text("-----BEGIN CERTIFICATE-----\nnonsense\n")
        assert "ca.crt is not a certificate in PEM form (37 bytes, 1 certificate headers)" in self.fails(tmp_path)

    def test_a_damaged_key(self, tmp_path: Path, root: Path) -> None:
        (root / "authorities/etcd/ca.key").write_text("")
        assert "ca.key is not an unencrypted private key in PEM form (0 bytes)" in self.fails(tmp_path)

    def test_an_encrypted_key(self, tmp_path: Path, root: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        encrypted = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x"))
        (root / "authorities/etcd/ca.key").write_bytes(encrypted)
        assert "not an unencrypted private key" in self.fails(tmp_path)

    def test_a_key_of_another_authority(self, tmp_path: Path, root: Path) -> None:
        other = folder(tmp_path).authority("other")
        (root / "authorities/etcd/ca.key").write_bytes(pki._private_pem(other.key))
        assert "does not belong to a certificate" in self.fails(tmp_path)

    def test_an_authority_that_expired(self, tmp_path: Path, root: Path) -> None:
        message = self.fails(tmp_path, NOW + datetime.timedelta(days=3651))
        assert "the CA 'etcd' expired on 2036-11-18" in message and "clock" in message

    def test_a_leaf_in_the_place_of_an_authority(self, tmp_path: Path, root: Path) -> None:
        for end in ("crt", "key"):
            (root / f"authorities/etcd/ca.{end}").write_bytes((root / NODE / f"server.{end}").read_bytes())
        assert "is not a CA certificate" in self.fails(tmp_path)

    def test_a_damaged_leaf_says_that_it_may_go(self, tmp_path: Path, root: Path) -> None:
        (root / NODE / "server.crt").write_text("nonsense")
        message = self.fails(tmp_path)
        assert "Remove" in message and "a new certificate is issued" in message

    def test_a_folder_in_the_place_of_a_key(self, tmp_path: Path, root: Path) -> None:
        (root / "authorities/etcd/ca.key").unlink()
        (root / "authorities/etcd/ca.key").mkdir()
        assert "ca.key cannot be read: Is a directory" in self.fails(tmp_path)

    def test_a_file_in_the_place_of_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "credentials").write_text("")
        assert "credentials" in self.fails(tmp_path)

    def test_a_lock_that_is_never_freed(self, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pki, "LOCK_SECONDS", 0.05)
        holder = folder(tmp_path)
        with holder._lock(), pytest.raises(pki.CertificatesError, match=r"\.lock is held by another run"):
            folder(tmp_path).authority("new")


class TestCertificate:
    def test_it_says_what_was_asked_for(self, tmp_path: Path) -> None:
        issued = folder(tmp_path).certificate(spec(organizations=["system:nodes"]), NODE)
        certificate = parse(issued.certificate)
        assert issued.reason == "it is new"
        assert certificate.subject.rfc4514_string() == "CN=node1,O=system:nodes"
        assert issued.facts["dns"] == ["localhost", "node1"]
        assert issued.facts["addresses"] == ["10.0.0.1", "127.0.0.1"]
        assert issued.facts["usages"] == ["client", "server"]
        assert certificate.not_valid_before_utc == NOW - datetime.timedelta(minutes=5)
        assert certificate.not_valid_after_utc == NOW + datetime.timedelta(days=365)
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert "PRIVATE" not in str(issued.facts)

    def test_a_verifier_accepts_it(self, tmp_path: Path) -> None:
        credentials = folder(tmp_path)
        issued = credentials.certificate(spec(), NODE)
        verifier = PolicyBuilder().store(Store([credentials.authority("etcd").certificate])).time(NOW)
        verifier.build_server_verifier(x509.DNSName("node1")).verify(parse(issued.certificate), [])
        verifier.build_client_verifier().verify(parse(issued.certificate), [])

    def test_nothing_is_issued_twice(self, tmp_path: Path) -> None:
        first = folder(tmp_path).certificate(spec(), NODE)
        second = folder(tmp_path).certificate(spec(), NODE)
        assert not second.changed
        assert (first.certificate, first.key) == (second.certificate, second.key)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"dns": ["node1"]}, "DNS names changed"),
            ({"addresses": ["10.0.0.2"]}, "addresses changed"),
            ({"usages": ["server"]}, "usages changed"),
            ({"common_name": "node2"}, "common name changed"),
            ({"organizations": ["a"]}, "organizations changed"),
            ({"authority": "site"}, "signed by another authority"),
        ],
    )
    def test_a_change_is_issued_with_the_same_key(self, tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
        first = folder(tmp_path).certificate(spec(), NODE)
        second = folder(tmp_path).certificate(spec(**changes), NODE)
        assert reason in second.reason
        assert second.key == first.key and second.certificate != first.certificate
        assert not folder(tmp_path).certificate(spec(**changes), NODE).changed

    @pytest.mark.parametrize(("days", "reason"), [(334, ""), (336, "expires in 29 days"), (400, "it has expired")])
    def test_it_is_renewed_before_it_expires(self, tmp_path: Path, days: int, reason: str) -> None:
        folder(tmp_path).certificate(spec(), NODE)
        later = folder(tmp_path, NOW + datetime.timedelta(days=days)).certificate(spec(), NODE)
        assert reason in later.reason and later.changed == bool(reason)

    def test_it_does_not_outlive_its_authority_nor_is_renewed_each_run_then(self, tmp_path: Path) -> None:
        folder(tmp_path).authority("etcd")
        late = NOW + datetime.timedelta(days=3640)
        issued = folder(tmp_path, late).certificate(spec(), NODE)
        assert parse(issued.certificate).not_valid_after_utc == NOW + datetime.timedelta(days=3650)
        assert not folder(tmp_path, late).certificate(spec(), NODE).changed

    def test_a_new_authority_issues_again(self, tmp_path: Path) -> None:
        credentials = folder(tmp_path)
        credentials.certificate(spec(), NODE)
        for name in ("ca.crt", "ca.key"):
            (credentials.root / "authorities/etcd" / name).unlink()
        assert "an earlier key of the authority" in folder(tmp_path).certificate(spec(), NODE).reason

    def test_a_key_that_does_not_match_is_kept_and_the_certificate_replaced(self, tmp_path: Path) -> None:
        credentials = folder(tmp_path)
        credentials.certificate(spec(), NODE)
        other = pki._private_pem(ec.generate_private_key(ec.SECP256R1()))
        (credentials.root / NODE / "server.key").write_bytes(other)
        issued = folder(tmp_path).certificate(spec(), NODE)
        assert issued.reason == "its key did not match" and issued.key == other.decode()

    @pytest.mark.parametrize("lost", ["server.key", "server.crt"])
    def test_half_of_a_pair_heals(self, tmp_path: Path, lost: str) -> None:
        credentials = folder(tmp_path)
        credentials.certificate(spec(), NODE)
        (credentials.root / NODE / lost).unlink()
        issued = folder(tmp_path).certificate(spec(), NODE)
        assert issued.changed
        key = serialization.load_pem_private_key(issued.key.encode(), None)
        assert key.public_key() == parse(issued.certificate).public_key()
        assert not folder(tmp_path).certificate(spec(), NODE).changed

    def test_check_mode_writes_nothing(self, tmp_path: Path) -> None:
        issued = folder(tmp_path, dry_run=True).certificate(spec(), NODE)
        assert issued.changed and issued.certificate
        assert not (tmp_path / "credentials").exists()

    def test_no_temporary_file_stays(self, tmp_path: Path) -> None:
        credentials = folder(tmp_path)
        credentials.certificate(spec(), NODE)
        assert sorted(os.listdir(credentials.root / NODE)) == ["server.crt", "server.key"]

    def test_where_nothing_is_due_no_key_is_made_and_nothing_signed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Both cost most of the time; how long a site of a thousand nodes takes is measured by bench/scale.py."""
        specs = [spec(name=f"c{number}") for number in range(8)]
        for one in specs:
            folder(tmp_path).certificate(one, NODE)

        def never(*_: object, **__: object) -> None:
            raise AssertionError("something is made anew")

        monkeypatch.setattr(x509.CertificateBuilder, "sign", never)
        monkeypatch.setattr(ec, "generate_private_key", never)
        again = folder(tmp_path)
        assert not any(again.certificate(one, NODE).changed for one in specs)


class TestKeypair:
    asked = pki.parse_spec({"component": "kubernetes_control", "name": "service_accounts", "kind": "keypair", "owner": "kube"})

    def test_all_nodes_share_it(self, tmp_path: Path) -> None:
        first, second = folder(tmp_path).keypair(self.asked), folder(tmp_path).keypair(self.asked)
        assert first.changed and not second.changed
        assert (first.key, first.public) == (second.key, second.public)
        key = serialization.load_pem_private_key(first.key.encode(), None)
        assert isinstance(key, rsa.RSAPrivateKey) and key.key_size == 2048
        assert first.public.startswith("-----BEGIN PUBLIC KEY-----")

    def test_a_lost_public_half_heals(self, tmp_path: Path) -> None:
        first = folder(tmp_path).keypair(self.asked)
        public = tmp_path / "credentials/keypairs/kubernetes_control-service_accounts.pub"
        public.unlink()
        assert folder(tmp_path).keypair(self.asked).public == first.public
        assert public.read_text() == first.public


def test_a_kubeconfig_holds_everything() -> None:
    text = pki.kubeconfig({"lab-node1": "https://10.0.0.1:6443", "lab-node2": "https://10.0.0.2:6443"}, "lab-node1", "admin", "CA", "CRT", "KEY")
    document = yaml.safe_load(text)
    assert document["current-context"] == "lab-node1"
    assert [entry["cluster"]["server"] for entry in document["clusters"]] == ["https://10.0.0.1:6443", "https://10.0.0.2:6443"]
    assert document["users"][0]["user"] == {"client-certificate-data": "Q1JU", "client-key-data": "S0VZ"}
    assert {entry["context"]["user"] for entry in document["contexts"]} == {"admin"}


def test_vaulted_files_are_opened(tmp_path: Path) -> None:
    made = folder(tmp_path).authority("etcd")
    path = tmp_path / "credentials/authorities/etcd/ca.key"
    path.write_bytes(b"$ANSIBLE_VAULT" + path.read_bytes())
    opened = folder(tmp_path, decrypt=lambda data: data.removeprefix(b"$ANSIBLE_VAULT"))
    assert opened.authority("etcd").certificate == made.certificate
