# SPDX-License-Identifier: Apache-2.0
"""The program that tells when certificates of a host end and what is installed on it."""

from __future__ import annotations

import datetime
import importlib.machinery
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

PROGRAM = Path(__file__).resolve().parents[3] / "roles/node_exporter/templates/usr/local/libexec/ashlar/facts"
UTC = datetime.timezone.utc
END = datetime.datetime(2031, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.fixture(scope="module")
def facts() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("facts", str(PROGRAM))
    spec = importlib.util.spec_from_loader("facts", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def certificate(end: datetime.datetime, name: str = "x", key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key()).serial_number(x509.random_serial_number())
    start = datetime.datetime(2020, 1, 1, tzinfo=UTC)
    return builder.not_valid_before(start).not_valid_after(end).sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host's file system with one certificate, one authority that is being replaced, and one artifact."""
    for folder in ("etc/ashlar/pki/etcd", "etc/ashlar/pki/ca", "opt/ashlar/etcd/3.7.3", "var/lib/node_exporter"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/ashlar/pki/etcd/server.crt").write_bytes(certificate(END) + certificate(END + datetime.timedelta(days=900)))
    (tmp_path / "etc/ashlar/pki/ca/etcd.crt").write_bytes(certificate(END) + certificate(END + datetime.timedelta(days=1)))
    (tmp_path / "opt/ashlar/etcd/current").symlink_to("/opt/ashlar/etcd/3.7.3")
    (tmp_path / "etc/os-release").write_text('NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n')
    kubelet = {"component": "kubernetes_node", "name": "server", "path": "/var/lib/kubelet/pki/none.pem"}
    settings = {"info": {"release": "2026.11"}, "certificates": [kubelet], "backup_max_age_seconds": 0}
    (tmp_path / "etc/ashlar/facts.json").write_text(json.dumps(settings))
    return tmp_path


def told(host: Path) -> list[str]:
    return [line for line in (host / "var/lib/node_exporter/ashlar.prom").read_text().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("end", [END, datetime.datetime(2050, 1, 1, tzinfo=UTC), datetime.datetime(1999, 12, 31, tzinfo=UTC)])
def test_the_end_of_a_certificate_is_read_whatever_its_key_and_century(facts: ModuleType, end: datetime.datetime) -> None:
    start = datetime.datetime(1990, 1, 1, tzinfo=UTC)
    for key in (ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "n" * 60), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "o" * 60)])
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key()).serial_number(x509.random_serial_number())
        der = made.not_valid_before(start).not_valid_after(end).sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
        assert facts.not_after(der) == int(end.timestamp())


def test_a_host_tells_its_certificates_versions_and_itself(facts: ModuleType, host: Path) -> None:
    assert facts.main(host) == 0
    lines = told(host)
    assert f'ashlar_certificate_not_after_seconds{{component="etcd",name="server"}} {int(END.timestamp())}' in lines, "the first of a chain counts"
    assert f'ashlar_certificate_not_after_seconds{{component="ca",name="etcd"}} {int(END.timestamp()) + 86400}' in lines, "the last of the authorities counts"
    assert 'ashlar_artifact_info{artifact="etcd",version="3.7.3"} 1' in lines
    assert "ashlar_certificates_unread 0" in lines, "a kubelet that has no certificate yet is not a fault"
    assert any(line.startswith('ashlar_node_info{release="2026.11",kernel="') and 'system="Debian GNU/Linux 13 (trixie)"' in line for line in lines)


def test_what_is_no_certificate_is_counted_and_named_and_hides_no_other(facts: ModuleType, host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pki = host / "etc/ashlar/pki/etcd"
    (pki / "empty.crt").write_text("")
    (pki / "binary.crt").write_bytes(b"\xff\x00\x81")
    (pki / "short.crt").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    assert facts.main(host) == 0
    assert "ashlar_certificates_unread 3" in told(host)
    assert any('name="server"' in line for line in told(host))
    said = capsys.readouterr().err
    assert all(f"{name}.crt cannot be read as a certificate" in said for name in ("empty", "binary", "short"))


def test_labels_are_escaped(facts: ModuleType) -> None:
    assert facts.sample("a", {"b": 'c"d\\e\nf'}, 1) == 'a{b="c\\"d\\\\e\\nf"} 1'


def test_without_settings_it_says_what_to_do_and_leaves_what_was_told(facts: ModuleType, host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts.main(host)
    before = told(host)
    (host / "etc/ashlar/facts.json").unlink()
    assert facts.main(host) == 1
    assert "written by site.yml" in capsys.readouterr().err
    assert told(host) == before


def test_what_is_known_of_backups_is_told(facts: ModuleType, host: Path) -> None:
    assert facts.main(host) == 0 and not [line for line in told(host) if "backup" in line]
    (host / "var/lib/ashlar").mkdir()
    (host / "var/lib/ashlar/backup.json").write_text('{"name": "prod-1.tar.age", "time": 1700000000, "bytes": 4096}')
    settings = json.loads((host / "etc/ashlar/facts.json").read_text())
    (host / "etc/ashlar/facts.json").write_text(json.dumps({**settings, "backup_max_age_seconds": 93600}))
    assert facts.main(host) == 0
    assert [line for line in told(host) if "backup" in line] == [
        "ashlar_backup_max_age_seconds 93600",
        "ashlar_backup_timestamp_seconds 1700000000",
        "ashlar_backup_size_bytes 4096",
    ]
