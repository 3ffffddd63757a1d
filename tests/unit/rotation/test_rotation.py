# SPDX-License-Identifier: Apache-2.0
"""Secrets are replaced in steps of which each may be repeated, and in none of which anybody is refused who was let in before it."""

from __future__ import annotations

import datetime
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ashlar.stack.plugins.plugin_utils import pki, secrets
from ansible_collections.ashlar.stack.plugins.plugin_utils.rotation import STEPS, Group, Rotation, RotationError, State, begin, load, text_of
from cryptography import x509

NOW = datetime.datetime(2026, 11, 29, 12, 0, tzinfo=datetime.UTC)
NODE = Path("nodes/node1/etcd")
GROUPS = {
    "certificates": [Group(("nodes/*/*/*.key",), "certificate")],
    "authorities": [Group(("authorities/*/ca.key",), "authority")],
    "tokens": [Group(("consul/tokens/*",), "uuid"), Group(("store/*",), "password")],
    "service_account_key": [Group(("keypairs/control-service_account.key",), "keypair", 24)],
}
PAIR = pki.parse_spec({"component": "control", "name": "service_account", "kind": "keypair"})
LEAF = pki.parse_spec({"component": "etcd", "name": "server", "authority": "etcd", "usages": ["server"], "dns": ["node1"]})


class Site:
    """The credentials of a site, and a rotation of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.leaf()
        self.pair()
        for name, kind in (("consul/tokens/edge", "uuid"), ("consul/tokens/dns", "uuid"), ("store/node1", "password")):
            secrets.obtain(root, name, kind, False)

    @property
    def credentials(self) -> pki.Credentials:
        return pki.Credentials(self.root, site="lab", now=NOW)

    def leaf(self) -> pki.Issued:
        return self.credentials.certificate(LEAF, NODE)

    def pair(self) -> pki.Issued:
        return self.credentials.keypair(PAIR)

    def trusts(self, leaf: pki.Issued) -> bool:
        certificate = x509.load_pem_x509_certificate(leaf.certificate.encode())
        for authority in x509.load_pem_x509_certificates(self.credentials.authority("etcd").bundle.encode()):
            if certificate.issuer == authority.subject:
                certificate.verify_directly_issued_by(authority)
                return True
        return False

    def secret(self, name: str) -> secrets.Secret:
        found = secrets.read(self.root / name)
        assert found
        return found

    def take(self, step: str, *what: str, waiting: dict[str, str] | None = None, now: datetime.datetime = NOW) -> State:
        return Rotation(self.credentials, GROUPS).take(State(what, what, step, waiting or {}), now)

    def content(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.root)): path.read_bytes() for path in sorted(self.root.rglob("*")) if path.is_file()}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "credentials")


def test_a_secret_is_accepted_before_it_is_used_and_after(site: Site) -> None:
    old = site.secret("consul/tokens/edge").current
    site.take("introduce", "tokens")
    both = site.secret("consul/tokens/edge")
    assert both.current == old and both.next and both.accepted == [old, both.next]
    site.take("switch", "tokens")
    assert site.secret("consul/tokens/edge") == secrets.Secret(both.next, previous=old)
    site.take("drop", "tokens")
    assert site.secret("consul/tokens/edge").accepted == [both.next]
    assert len(site.secret("store/node1").current) == 32, "another kind"


def test_a_new_authority_is_trusted_before_it_signs_and_the_old_one_afterwards(site: Site) -> None:
    old = site.leaf()
    site.take("introduce", "authorities")
    assert site.leaf() == old, "nothing is issued anew before the new CA is trusted everywhere"
    site.take("switch", "authorities")
    new = site.leaf()
    assert new.reason == "it was signed by another authority" and new.facts["issuer"] == "lab etcd authority 2"
    assert site.trusts(old) and site.trusts(new)
    site.take("drop", "authorities")
    assert site.trusts(new) and not site.trusts(old)
    assert not site.leaf().changed
    assert sorted(path.name for path in (site.root / "authorities/etcd").iterdir()) == ["ca.crt", "ca.key"]


def test_authorities_are_counted(site: Site) -> None:
    for count in (2, 3):
        for step in STEPS:
            site.take(step, "authorities")
        assert site.leaf().facts["issuer"] == f"lab etcd authority {count}"


def test_a_signer_gets_one_certificate(site: Site) -> None:
    signer = pki.parse_spec({"component": "control", "name": "signer", "kind": "signer", "authority": "etcd"})
    site.take("introduce", "authorities")
    first = site.credentials.signer(signer)
    site.take("switch", "authorities")
    second = site.credentials.signer(signer)
    assert first.certificate.count("BEGIN") == second.certificate.count("BEGIN") == 1
    assert first.certificate != second.certificate


def test_signatures_of_the_old_key_are_accepted_until_nobody_has_any(site: Site) -> None:
    old = site.pair()
    site.take("introduce", "service_account_key")
    assert site.pair().key == old.key and site.pair().public.startswith(old.public) and site.pair().public.count("BEGIN") == 2
    site.take("switch", "service_account_key")
    new = site.pair()
    assert new.key != old.key and old.public in new.public and not new.public.startswith(old.public)
    state = site.take("drop", "service_account_key")
    assert state.waiting == {"service_account_key": "2026-11-30 12:00:00 UTC"} and site.pair() == new
    for step in STEPS:
        state = site.take(step, "service_account_key", waiting=dict(state.waiting))
    assert state.waiting == {} and site.pair().key == new.key and site.pair().public.count("BEGIN") == 1
    assert site.take("drop", "service_account_key").waiting == {}, "a run that was killed has dropped it already"


def test_leaf_certificates_get_new_keys(site: Site) -> None:
    old = site.leaf()
    site.take("introduce", "certificates")
    assert site.leaf() == old
    site.take("switch", "certificates")
    assert site.leaf().key != old.key
    new = site.leaf()
    site.take("drop", "certificates")
    assert site.leaf() == new


@pytest.mark.parametrize("step", STEPS)
def test_a_step_may_be_repeated(site: Site, step: str) -> None:
    for each in STEPS[: STEPS.index(step) + 1]:
        site.take(each, *GROUPS)
    before = site.content()
    site.take(step, *GROUPS)
    assert site.content() == before


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_was_killed_anywhere_is_completed(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each file that it would have replaced, one after another."""
    really, count, kills = os.replace, 0, 0

    def dying(*arguments: Any) -> None:
        nonlocal count
        count -= 1
        if count < 0:
            raise KeyboardInterrupt
        really(*arguments)

    while True:
        site = Site(tmp_path / f"credentials{kills}")
        old = {name: site.secret(name).current for name in ("consul/tokens/edge", "consul/tokens/dns", "store/node1")}
        for each in STEPS[: STEPS.index(step)]:
            site.take(each, *GROUPS)
        monkeypatch.setattr(os, "replace", dying)
        count = kills
        try:
            site.take(step, *GROUPS)
            ended = True
        except KeyboardInterrupt:
            ended = False
        monkeypatch.setattr(os, "replace", really)
        site.take(step, *GROUPS)
        for name, secret in old.items():
            found = site.secret(name)
            assert (found.current == secret) == (step == "introduce"), "switched once and not back"
            assert (secret in found.accepted) == (step != "drop")
        assert site.leaf().certificate and site.pair().key
        if ended:
            break
        kills += 1
    assert kills >= (0 if step == "switch" else 2)


def test_what_was_encrypted_stays_so(site: Site) -> None:
    def encrypt(data: bytes) -> bytes:
        return b"$ANSIBLE_VAULT" + data[::-1]

    def decrypt(data: bytes) -> bytes:
        return data.removeprefix(b"$ANSIBLE_VAULT")[::-1] if data.startswith(b"$ANSIBLE_VAULT") else data

    for name in ("consul/tokens/edge", "authorities/etcd/ca.key", "keypairs/control-service_account.key"):
        (site.root / name).write_bytes(encrypt((site.root / name).read_bytes()))
    credentials = replace(site.credentials, decrypt=decrypt, encrypt=encrypt)
    for step in STEPS:
        Rotation(credentials, GROUPS).take(State((), tuple(GROUPS), step), NOW)
        credentials = replace(credentials, _authorities={})
    for name in ("consul/tokens/edge", "authorities/etcd/ca.key", "keypairs/control-service_account.key"):
        assert (site.root / name).read_bytes().startswith(b"$ANSIBLE_VAULT"), name
    assert not (site.root / "consul/tokens/dns").read_bytes().startswith(b"$ANSIBLE_VAULT")


def test_check_mode_writes_nothing(site: Site) -> None:
    before = site.content()
    for step in STEPS:
        Rotation(replace(site.credentials, dry_run=True), GROUPS).take(State((), tuple(GROUPS), step), NOW)
    assert site.content() == before


def test_everything_is_what_the_site_has() -> None:
    state = begin(State(), ["all"], list(GROUPS), False, NOW)
    assert (state.what, state.step) == (tuple(GROUPS), "introduce")
    assert begin(State(), ["tokens", "authorities"], list(GROUPS), False, NOW).what == ("authorities", "tokens")


def test_a_rotation_goes_on_where_it_was() -> None:
    state = begin(State(), ["tokens"], list(GROUPS), False, NOW)
    assert begin(replace(state, step="drop"), ["tokens"], list(GROUPS), False, NOW).step == "drop"
    assert [replace(state, step="switch").has_passed(step) for step in STEPS] == [True, False, False]


def test_what_waits_is_left_out_or_ended() -> None:
    waits = State(waiting={"service_account_key": "2026-11-30 12:00:00 UTC"})
    assert begin(waits, ["all"], list(GROUPS), False, NOW).what == ("certificates", "authorities", "tokens")
    assert begin(waits, ["all"], list(GROUPS), True, NOW).what == tuple(GROUPS)
    later = NOW + datetime.timedelta(days=1)
    assert begin(waits, ["service_account_key"], list(GROUPS), False, later).what == ("service_account_key",)


@pytest.mark.parametrize(
    ("state", "asked", "message"),
    [
        (State(), [], "It is not said what to rotate, by -e what=<names>. Allowed: one or more of certificates, authorities, tokens, service_account_key, "),
        (State(), ["passwords"], "what has passwords, which this site does not have. Allowed: one or more of certificates,"),
        (State(("tokens",), ("tokens",), "switch"), ["all"], "A rotation of tokens is under way and comes first: -e what=tokens. Nothing was changed."),
        (
            State(waiting={"service_account_key": "2026-11-30 12:00:00 UTC"}),
            ["service_account_key"],
            "The last rotation of service_account_key waits: what the old key has signed may be in use until 2026-11-30 12:00:00 UTC. Run this again then,",
        ),
    ],
    ids=["nothing", "unknown", "another", "waits"],
)
def test_refusals(state: State, asked: list[str], message: str) -> None:
    with pytest.raises(RotationError) as caught:
        begin(state, asked, list(GROUPS), False, NOW)
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("Nothing was changed.")


def test_the_state_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "rotation.json"
    assert load(file) == State() and text_of(State()) == ""
    state = State(("all",), ("tokens",), "switch", {"service_account_key": "2026-11-30 12:00:00 UTC"})
    file.write_text(text_of(state))
    assert load(file) == state
    file.write_text("{}")
    with pytest.raises(RotationError, match=r"rotation.json can't be read .* put it back from your backup"):
        load(file)


def test_an_empty_secret_is_an_error(site: Site) -> None:
    (site.root / "consul/tokens/edge").write_text("\n")
    with pytest.raises(secrets.SecretError, match="tokens/edge is empty"):
        site.take("introduce", "tokens")
