# SPDX-License-Identifier: Apache-2.0
"""A site's certificate authorities and what they have issued, kept in a folder on the controller.

Layout of the folder (``site_credentials``), directories 0700 and files 0600::

    authorities/<authority>/ca.crt     PEM; the certificate that belongs to ca.key signs, further ones are trusted only
    authorities/<authority>/ca.key     PEM, PKCS 8; next.key beside it is that of a CA which is trusted already and will sign
    nodes/<host>/<component>/<name>.crt and .key
    keypairs/<component>-<name>.key and .pub; in .pub the key's own public half, further ones are accepted only; .next.key as above
    admin/<component>/<name>.crt and .key

Decisions (is this certificate still what was asked for?) are pure functions of a `Spec` and a certificate; `Credentials` does the rest.
Private keys are ECDSA P-256, key pairs for service accounts RSA 2048, as RFC 5280 and the Kubernetes documentation expect.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import ipaddress
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.ashlar.stack.plugins.module_utils.host.locks import acquire
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

USAGES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
KINDS = ("certificate", "keypair", "signer")
AUTHORITY_DAYS = 3650
BACKDATE = datetime.timedelta(minutes=5)
LOCK_SECONDS = 60
# RFC 5280, appendix A: the upper bound of a common name and of an organization name.
NAME_LIMIT = 64

_WORD = re.compile(r"[a-z0-9]([a-z0-9_.-]*[a-z0-9])?")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_DNS = re.compile(r"(?=.{1,253}$)(\*\.)?([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*")
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----")
_PUBLIC = re.compile(rb"-----BEGIN PUBLIC KEY-----\n[A-Za-z0-9+/=\n]+-----END PUBLIC KEY-----\n")
_GENERATION = re.compile(r" authority(?: (\d+))?\Z")


class CertificatesError(Exception):
    """What is wrong, where, what is allowed and what to do, as one sentence or two for the user."""


@dataclass(frozen=True)
class Spec:
    """One certificate or key pair that a manifest asks for, checked and in canonical order.

    ``dns`` and ``addresses`` are sorted and without duplicates, so that two specs that mean the same are equal.
    """

    component: str
    name: str
    kind: str = "certificate"
    authority: str = ""
    usages: tuple[str, ...] = ()
    common_name: str = ""
    organizations: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    owner: str = "root"

    @property
    def label(self) -> str:
        return f"{self.component}/{self.name}"


@dataclass(frozen=True)
class Issued:
    """What lies on the controller for one spec: PEM texts, facts that may be shown, and whether this run made it."""

    spec: Spec
    certificate: str
    key: str
    public: str
    facts: dict[str, Any]
    reason: str = ""

    @property
    def changed(self) -> bool:
        return bool(self.reason)


@dataclass(frozen=True)
class Policy:
    """How long certificates live, in days."""

    days: int = 365
    renew_before_days: int = 30


def _flat(value: Any, where: str) -> list[str]:
    """Templates may give a string, a list, or lists in a list; None and empty strings count as not given."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [str(value)]
    if isinstance(value, Sequence):
        return [item for part in value for item in _flat(part, where)]
    raise CertificatesError(f"{where}: a list of strings is expected, found {value!r}.")


def parse_spec(raw: Any) -> Spec:
    """Checks one entry of ``certificates``; raises CertificatesError naming component, certificate and option."""
    if not isinstance(raw, Mapping):
        raise CertificatesError(f"certificates: each entry is a dictionary, found {raw!r}.")
    values = {str(key): value for key, value in raw.items()}
    known = {"component", "name", "kind", "authority", "usages", "common_name", "organizations", "dns", "addresses", "owner"}
    label = f"certificate {values.get('component', '?')}/{values.get('name', '?')}"
    for unknown in sorted(set(values) - known):
        raise CertificatesError(f"{label}: unknown option '{unknown}'; allowed are {', '.join(sorted(known))}.")
    for option in ("component", "name"):
        if not _WORD.fullmatch(str(values.get(option) or "")):
            raise CertificatesError(f"{label}: {option} must be a word of a-z, 0-9, '_', '.' and '-', found {values.get(option)!r}.")
    kind = str(values.get("kind") or "certificate")
    if kind not in KINDS:
        raise CertificatesError(f"{label}: kind is '{kind}'; allowed are {' and '.join(KINDS)}.")
    owner = str(values.get("owner") or "root")
    if not _USER.fullmatch(owner):
        raise CertificatesError(f"{label}: owner '{owner}' is not the name of a system user.")
    base: dict[str, Any] = {"component": str(values["component"]), "name": str(values["name"]), "kind": kind, "owner": owner}
    if kind == "keypair":
        return Spec(**base)

    authority = str(values.get("authority") or "")
    if not _WORD.fullmatch(authority):
        raise CertificatesError(f"{label}: authority must name a CA (etcd, kubernetes, front_proxy, site), found {values.get('authority')!r}.")
    if kind == "signer":
        return Spec(**base, authority=authority)
    usages = tuple(sorted(set(_flat(values.get("usages"), f"{label}: usages"))))
    if not usages or set(usages) - set(USAGES):
        raise CertificatesError(f"{label}: usages must be one or both of {', '.join(sorted(USAGES))}, found {values.get('usages')!r}.")
    common_name = str(values.get("common_name") or values["name"])
    organizations = tuple(sorted(set(_flat(values.get("organizations"), f"{label}: organizations"))))
    for text in (common_name, *organizations):
        if len(text) > NAME_LIMIT:
            raise CertificatesError(f"{label}: '{text}' has {len(text)} characters; a name in a certificate has at most {NAME_LIMIT}.")
    dns = tuple(sorted({name.lower() for name in _flat(values.get("dns"), f"{label}: dns")}))
    for name in dns:
        if not _DNS.fullmatch(name):
            raise CertificatesError(f"{label}: dns '{name}' is not a DNS name.")
    addresses = set()
    for address in _flat(values.get("addresses"), f"{label}: addresses"):
        try:
            addresses.add(ipaddress.ip_address(address))
        except ValueError:
            raise CertificatesError(f"{label}: addresses '{address}' is not an IP address; names belong into dns.") from None
    if "server" in usages and not dns and not addresses:
        raise CertificatesError(f"{label}: a server certificate needs dns or addresses; clients check nothing else.")
    ordered = tuple(str(address) for address in sorted(addresses, key=lambda a: (a.version, int(a))))
    return Spec(**base, authority=authority, usages=usages, common_name=common_name, organizations=organizations, dns=dns, addresses=ordered)


def parse_specs(raw: Any) -> list[Spec]:
    """Checks the whole list; two entries for one file are an error."""
    if not isinstance(raw, Sequence) or isinstance(raw, str):
        raise CertificatesError(f"certificates: a list is expected, found {type(raw).__name__}.")
    specs = [parse_spec(entry) for entry in raw]
    seen: set[str] = set()
    for spec in specs:
        if spec.label in seen:
            raise CertificatesError(f"certificate {spec.label} is asked for twice; names are unique in a component.")
        seen.add(spec.label)
    return specs


def _names(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> tuple[str, ...]:
    return tuple(sorted(str(item.value) for item in certificate.subject.get_attributes_for_oid(oid)))


def _alternatives(certificate: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(DNS names, addresses), both sorted as a Spec has them."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), ()
    addresses = sorted(names.get_values_for_type(x509.IPAddress), key=lambda a: (a.version, int(a)))  # type: ignore[arg-type]
    return tuple(sorted(names.get_values_for_type(x509.DNSName))), tuple(str(address) for address in addresses)


def _usages(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return ()
    by_oid = {oid: name for name, oid in USAGES.items()}
    return tuple(sorted(by_oid.get(oid, oid.dotted_string) for oid in extended))


def public_facts(certificate: x509.Certificate) -> dict[str, Any]:
    """What may be shown of a certificate; everything but a serial number, which would differ on each reissue in a diff."""
    dns, addresses = _alternatives(certificate)
    return {
        "common_name": next(iter(_names(certificate, NameOID.COMMON_NAME)), ""),
        "organizations": list(_names(certificate, NameOID.ORGANIZATION_NAME)),
        "dns": list(dns),
        "addresses": list(addresses),
        "usages": list(_usages(certificate)),
        "issuer": next((str(item.value) for item in certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)), ""),
        "not_after": certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def due(spec: Spec, certificate: x509.Certificate, authority: x509.Certificate, now: datetime.datetime, policy: Policy) -> str:
    """Why the certificate has to be issued again; empty when it is what the spec asks for and lives long enough."""
    if certificate.issuer != authority.subject:
        return "it was signed by another authority"
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return "it was signed by an earlier key of the authority"
    dns, addresses = _alternatives(certificate)
    found = {
        "common name": next(iter(_names(certificate, NameOID.COMMON_NAME)), ""),
        "organizations": _names(certificate, NameOID.ORGANIZATION_NAME),
        "DNS names": dns,
        "addresses": addresses,
        "usages": _usages(certificate),
    }
    asked = {
        "common name": spec.common_name,
        "organizations": spec.organizations,
        "DNS names": spec.dns,
        "addresses": spec.addresses,
        "usages": spec.usages,
    }
    differing = [what for what in asked if asked[what] != found[what]]
    if differing:
        return f"{' and '.join(differing)} changed"
    left = certificate.not_valid_after_utc - now
    if left <= datetime.timedelta(0):
        return "it has expired"
    # An authority near its own end bounds what it can issue; renewing every run would not help then.
    if left < datetime.timedelta(days=policy.renew_before_days) and certificate.not_valid_after_utc < authority.not_valid_after_utc:
        return f"it expires in {left.days} days"
    return ""


def _subject(common_name: str, organizations: Sequence[str]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization) for organization in organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _private_pem(key: Any) -> bytes:
    return bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def _public_pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))


def _key_usage(**chosen: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: chosen.get(name, False) for name in names})


def sign_authority(name: str, site: str, key: Any, now: datetime.datetime, generation: int = 1) -> x509.Certificate:
    """A self-signed certificate of an authority that may sign leaf certificates only (path length 0).

    `generation` counts the CAs that a site has had under this name, and is part of the subject, so that an issuer says which one it is.
    """
    subject = _subject(f"{site} {name} authority" + (f" {generation}" if generation > 1 else ""), [])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + datetime.timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(digital_signature=True, key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )


def sign_leaf(spec: Spec, key: Any, authority: Authority, now: datetime.datetime, policy: Policy) -> x509.Certificate:
    """A leaf certificate for `spec`; it never outlives its authority."""
    until = min(now + datetime.timedelta(days=policy.days), authority.certificate.not_valid_after_utc)
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in spec.dns]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in spec.addresses]
    identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateBuilder()
        .subject_name(_subject(spec.common_name, spec.organizations))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now - BACKDATE, authority.certificate.not_valid_before_utc))
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([USAGES[usage] for usage in spec.usages]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(authority.key, hashes.SHA256())


@dataclass(frozen=True)
class Authority:
    """A CA: `certificate` and `key` sign, `bundle` (PEM, `certificate` and those of earlier and later keys) is what nodes trust."""

    name: str
    certificate: x509.Certificate
    key: Any
    bundle: str
    created: bool = False


@dataclass
class Credentials:
    """The folder. With ``dry_run`` nothing is written; what would be issued exists in memory only.

    ``decrypt`` is given the raw bytes of a file and may return other ones (ansible-vault); ``encrypt`` is the reverse, for the successor of an encrypted key.
    """

    root: Path
    site: str = "site"
    policy: Policy = field(default_factory=Policy)
    dry_run: bool = False
    decrypt: Callable[[bytes], bytes] = field(default=bytes)
    encrypt: Callable[[bytes], bytes] = field(default=bytes)
    now: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).replace(microsecond=0))
    _authorities: dict[str, Authority] = field(default_factory=dict)
    _locked: bool = False

    # ------------------------------------------------------------------ what callers ask for

    def authority(self, name: str) -> Authority:
        """The CA `name`; made when it is not there yet."""
        if name not in self._authorities:
            found = self._load_authority(name)
            if found is None:
                with self._lock():
                    found = self._load_authority(name) or self._create_authority(name)
            self._authorities[name] = found
        return self._authorities[name]

    def certificate(self, spec: Spec, folder: Path) -> Issued:
        """The certificate for `spec` in `folder` (relative to the root); issued when it is missing or due."""
        authority = self.authority(spec.authority)
        issued = self._current(spec, authority, folder)
        if issued.certificate and not issued.changed:
            return issued
        with self._lock():
            # Another run may have issued it while this one waited.
            issued = self._current(spec, authority, folder)
            if issued.certificate and not issued.changed:
                return issued
            return self._issue(spec, authority, folder, issued)

    def store(self, path: Path, text: str) -> bool:
        """Writes a file of its own (a kubeconfig) beside the credentials, 0600; True when it differed."""
        if self._read(path) == text.encode() and path.stat().st_mode & 0o777 == 0o600:
            return False
        self._write(path, text.encode())
        return True

    def keypair(self, spec: Spec) -> Issued:
        """The RSA key pair of `spec`, the same for every node."""
        found = self._load_keypair(spec)
        if found is not None:
            return found
        with self._lock():
            return self._load_keypair(spec) or self._create_keypair(spec)

    def signer(self, spec: Spec) -> Issued:
        """The authority itself, key included, for a component that signs in its name (kube-controller-manager for kubelets)."""
        authority = self.authority(spec.authority)
        reason = "it is new" if authority.created else ""
        # Without those that are trusted only: what signs takes exactly one.
        return Issued(spec, _pem(authority.certificate).decode(), _private_pem(authority.key).decode(), "", public_facts(authority.certificate), reason)

    # ------------------------------------------------------------------ authorities

    def _load_authority(self, name: str) -> Authority | None:
        folder = self.root / "authorities" / name
        certificate_pem, key_pem = self._read(folder / "ca.crt"), self._read(folder / "ca.key", private=True)
        if certificate_pem is None:
            # A key without a certificate is a creation that was interrupted; _create_authority goes on with that key.
            return None
        if key_pem is None:
            raise CertificatesError(
                f"{folder}/ca.key is missing while {folder}/ca.crt exists: the CA '{name}' can sign nothing. "
                f"Restore the key from your backup; to start over with a new CA (all nodes get new certificates) remove {folder}."
            )
        certificates = self._parse_certificates(folder / "ca.crt", certificate_pem)
        key = self._parse_key(folder / "ca.key", key_pem)
        certificate = next((each for each in certificates if _certificate_public_pem(each) == _public_pem(key)), None)
        if certificate is None:
            raise CertificatesError(f"{folder}/ca.key does not belong to a certificate in {folder}/ca.crt. Restore the matching pair from your backup.")
        if certificate.not_valid_after_utc <= self.now:
            raise CertificatesError(
                f"{folder}/ca.crt: the CA '{name}' expired on {certificate.not_valid_after_utc:%Y-%m-%d}; certificates that it signs are not accepted. "
                f"Check this machine's clock; if it is right, remove {folder} to create a new CA and run again on all nodes."
            )
        try:
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
            certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except x509.ExtensionNotFound as error:
            raise CertificatesError(f"{folder}/ca.crt is not a CA certificate: {error}.") from None
        if not constraints.ca:
            raise CertificatesError(f"{folder}/ca.crt is not a CA certificate (its basic constraints say CA:FALSE).")
        return Authority(name, certificate, key, certificate_pem.decode())

    def _create_authority(self, name: str) -> Authority:
        folder = self.root / "authorities" / name
        key_pem = self._read(folder / "ca.key", private=True)
        key = self._parse_key(folder / "ca.key", key_pem) if key_pem else ec.generate_private_key(ec.SECP256R1())
        certificate = sign_authority(name, self.site, key, self.now)
        bundle = _pem(certificate)
        if key_pem is None:
            self._write(folder / "ca.key", _private_pem(key), durable=True)
        self._write(folder / "ca.crt", bundle, durable=True)
        return Authority(name, certificate, key, bundle.decode(), created=True)

    # ------------------------------------------------------------------ rotation, in three steps that may each be repeated

    def introduce_authority(self, name: str) -> None:
        """A further CA of this name is trusted from now on, which will sign later."""
        folder = self.root / "authorities" / name
        with self._lock():
            current = self.authority(name)
            key = self._next_key(folder / "ca.key", lambda: ec.generate_private_key(ec.SECP256R1()))
            if _public_pem(key) in map(_certificate_public_pem, x509.load_pem_x509_certificates(current.bundle.encode())):
                return
            subject = next(iter(_names(current.certificate, NameOID.COMMON_NAME)), "")
            generation = _GENERATION.search(subject)
            certificate = sign_authority(name, self.site, key, self.now, int((generation and generation[1]) or 1) + 1)
            self._write(folder / "ca.crt", current.bundle.rstrip().encode() + b"\n" + _pem(certificate), durable=True)

    def introduce_keypair(self, label: str) -> None:
        """Signatures of a further key pair are accepted from now on; `label` is C(<component>-<name>)."""
        with self._lock():
            self._next_key(self.root / "keypairs" / f"{label}.key", lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048))
            self._accepted(label)

    def switch(self, key: Path) -> None:
        """The key that was introduced beside `key`, an absolute path, signs from now on. The one before it is gone."""
        if not self.dry_run and _following(key).exists():
            os.replace(_following(key), key)

    def drop_authorities(self, name: str) -> None:
        """Only the CA that signs is trusted from now on."""
        with self._lock():
            current = self.authority(name)
            if current.bundle.encode() != _pem(current.certificate):
                self._write(self.root / "authorities" / name / "ca.crt", _pem(current.certificate), durable=True)

    def drop_keypairs(self, label: str) -> None:
        """Only signatures of the key pair that signs are accepted from now on."""
        path = self.root / "keypairs" / f"{label}.pub"
        with self._lock():
            key = self._parse_key(path.with_suffix(".key"), self._read(path.with_suffix(".key"), private=True) or b"")
            if self._read(path) != _public_pem(key):
                self._write(path, _public_pem(key))

    def _next_key(self, path: Path, make: Callable[[], Any]) -> Any:
        """The successor of the key at `path`, made unless it is there."""
        found = self._read(_following(path), private=True)
        if found:
            return self._parse_key(_following(path), found)
        key = make()
        encrypted = path.read_bytes() != self._read(path, private=True)
        self._write(_following(path), self.encrypt(_private_pem(key)) if encrypted else _private_pem(key), durable=True)
        return key

    # ------------------------------------------------------------------ leaf certificates

    def _current(self, spec: Spec, authority: Authority, folder: Path) -> Issued:
        """What lies there now; `reason` says why it will not do, `certificate` is empty when there is none, `key` when there is none."""
        base = self.root / folder
        key_pem, certificate_pem = self._read(base / f"{spec.name}.key", private=True), self._read(base / f"{spec.name}.crt")
        if key_pem is None:
            return Issued(spec, "", "", "", {}, "its key is missing" if certificate_pem else "it is new")
        if certificate_pem is None:
            return Issued(spec, "", key_pem.decode(), "", {}, "it is new")
        key = self._parse_key(base / f"{spec.name}.key", key_pem)
        certificate = self._parse_certificates(base / f"{spec.name}.crt", certificate_pem)[0]
        if _public_pem(key) != _certificate_public_pem(certificate):
            reason = "its key did not match"
        else:
            reason = due(spec, certificate, authority.certificate, self.now, self.policy)
        return Issued(spec, certificate_pem.decode(), key_pem.decode(), "", public_facts(certificate), reason)

    def _issue(self, spec: Spec, authority: Authority, folder: Path, current: Issued) -> Issued:
        base = self.root / folder
        if current.key:
            key, key_pem = self._parse_key(base / f"{spec.name}.key", current.key.encode()), current.key.encode()
        else:
            key = ec.generate_private_key(ec.SECP256R1())
            key_pem = _private_pem(key)
            self._write(base / f"{spec.name}.key", key_pem)
        certificate = sign_leaf(spec, key, authority, self.now, self.policy)
        certificate_pem = _pem(certificate)
        self._write(base / f"{spec.name}.crt", certificate_pem)
        return Issued(spec, certificate_pem.decode(), key_pem.decode(), "", public_facts(certificate), current.reason or "it is new")

    # ------------------------------------------------------------------ key pairs

    def _load_keypair(self, spec: Spec) -> Issued | None:
        label = f"{spec.component}-{spec.name}"
        key_pem = self._read(self.root / "keypairs" / f"{label}.key", private=True)
        if key_pem is None:
            return None
        size = getattr(self._parse_key(self.root / "keypairs" / f"{label}.key", key_pem), "key_size", "")
        return Issued(spec, "", key_pem.decode(), self._accepted(label), {"kind": f"{size} bit key pair"})

    def _accepted(self, label: str) -> str:
        """The public keys of a pair that are accepted, PEM. Its own follows from the private key, so a lost or damaged file heals."""
        path = self.root / "keypairs" / f"{label}.key"
        found = self._read(path.with_suffix(".pub")) or b""
        keys = [(each, self._read(each, private=True)) for each in (path, _following(path))]
        wanted = [_public_pem(self._parse_key(each, pem)) for each, pem in keys if pem is not None] + _PUBLIC.findall(found)
        public = b"".join(dict.fromkeys(wanted))
        if found != public:
            self._write(path.with_suffix(".pub"), public)
        return public.decode()

    def _create_keypair(self, spec: Spec) -> Issued:
        base = self.root / "keypairs" / f"{spec.component}-{spec.name}"
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        key_pem, public = _private_pem(key), _public_pem(key)
        self._write(base.with_name(base.name + ".key"), key_pem, durable=True)
        self._write(base.with_name(base.name + ".pub"), public)
        return Issued(spec, "", key_pem.decode(), public.decode(), {"kind": "2048 bit key pair"}, "it is new")

    # ------------------------------------------------------------------ files

    def _parse_certificates(self, path: Path, data: bytes) -> list[x509.Certificate]:
        try:
            return x509.load_pem_x509_certificates(data)
        except ValueError:
            raise CertificatesError(
                f"{path} is not a certificate in PEM form ({len(data)} bytes, {len(_PEM.findall(data))} certificate headers). {self._remedy(path)}"
            ) from None

    def _parse_key(self, path: Path, data: bytes) -> Any:
        try:
            return serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError):
            raise CertificatesError(f"{path} is not an unencrypted private key in PEM form ({len(data)} bytes). {self._remedy(path)}") from None

    def _remedy(self, path: Path) -> str:
        if "nodes" in path.relative_to(self.root).parts[:1]:
            return f"Remove {path.with_suffix('.crt')} and {path.with_suffix('.key')} and run again: a new certificate is issued."
        return "Put it back from your backup."

    def _read(self, path: Path, private: bool = False) -> bytes | None:
        """The content, None when there is no such file. A private key that others may read is refused: it has to be taken as leaked."""
        try:
            with open(path, "rb") as stream:
                mode = os.fstat(stream.fileno()).st_mode
                data = stream.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CertificatesError(f"{path} cannot be read: {error.strerror}. It must be readable by the user who runs Ansible (mode 0600).") from None
        if private and mode & 0o077:
            raise CertificatesError(
                f"{path} has mode {mode & 0o7777:04o}; a private key must not be accessible to group or others (0600). "
                f"If nobody else can have read it: chmod 600 {path}"
            )
        return self.decrypt(data)

    def _write(self, path: Path, data: bytes, durable: bool = False) -> None:
        """Replaces `path` in one step, 0600, in directories 0700; `durable` ones are on the disk before their name is."""
        if self.dry_run:
            return
        try:
            self._directory(path.parent)
            # mkstemp makes the file 0600.
            descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(data)
                    if durable:
                        stream.flush()
                        os.fsync(stream.fileno())
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            raise CertificatesError(f"{path} cannot be written: {error.strerror}. The user who runs Ansible must own {self.root}.") from None

    def _directory(self, path: Path) -> None:
        """Makes `path` and what is missing above it, 0700 each from the root on."""
        missing = []
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        for folder in reversed(missing):
            folder.mkdir(mode=0o700, exist_ok=True)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One writer at a time, over all forks and all runs of this site. Waits LOCK_SECONDS at most; may be nested."""
        if self.dry_run or self._locked:
            yield
            return
        try:
            self._directory(self.root)
            stream = open(self.root / ".lock", "a", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115
        except OSError as error:
            raise CertificatesError(f"{self.root} cannot be written: {error.strerror}. The user who runs Ansible must own it.") from None
        with stream:
            if not acquire(stream, LOCK_SECONDS):
                raise CertificatesError(f"{self.root}/.lock is held by another run for {LOCK_SECONDS} seconds. Let that run end, then run again.")
            self._locked = True
            try:
                yield
            finally:
                self._locked = False


def _following(key: Path) -> Path:
    """Where the successor of a private key lies."""
    return key.with_name("next.key") if key.name == "ca.key" else key.with_suffix(".next.key")


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _certificate_public_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def kubeconfig(servers: Mapping[str, str], current: str, user: str, authority: str, certificate: str, key: str) -> str:
    """The text of a kubeconfig: a cluster and a context for each of `servers` (context name -> https URL), everything embedded.

    PEM texts come in as text; https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/ has the format.
    """

    def encode(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": current,
        "clusters": [{"name": name, "cluster": {"server": url, "certificate-authority-data": encode(authority)}} for name, url in servers.items()],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}} for name in servers],
        "users": [{"name": user, "user": {"client-certificate-data": encode(certificate), "client-key-data": encode(key)}}],
    }
    return yaml.safe_dump(document, sort_keys=False, width=4096)
