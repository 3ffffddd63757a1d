# SPDX-License-Identifier: Apache-2.0
"""Consul's access control as state: policies and tokens of one owner are made equal to what is asked for.

`steps` decides, `Agent` talks to the agent of this host. Sources: https://developer.hashicorp.com/consul/api-docs/acl/policies,
.../acl/tokens, .../agent#update-acl-tokens.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import socket
import ssl
import time
import urllib.parse
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

AGENT_POLICY = "agent"
MANAGEMENT_NAME = "management"
MANAGEMENT_POLICY = "global-management"
"""Of Consul's own; it can do everything."""
# How Consul itself calls the token that a server's configuration names, and the one of its bootstrap call.
MANAGEMENT = ("Initial Management Token", "Bootstrap Token (Global Management)")
KEYRING = "/v1/operator/keyring"
PAUSE = 0.5
CALL_LIMIT = 10.0
PROBE_LIMIT = 2.0
SERVER_PORT = 8300
# A leader that has just been elected does not know the management token for a moment; for longer than this it is the wrong one.
FORBIDDEN_LIMIT = 20.0
# What servers say while they have no leader, change it, or are just starting.
PASSING = re.compile(
    r"no cluster leader|leadership lost|not the leader|no known .*servers|rpc error|bootstrap|connection|timeout|timed out|EOF|rate limit|not ready",
    re.IGNORECASE,
)
NAME = re.compile(r"[A-Za-z0-9_-]{1,100}\Z")


class ConsulError(Exception):
    """What was asked for cannot be done; the message says what, why and what to do."""


class NotReady(ConsulError):
    """Consul is not there yet, or has no leader; a first run in check mode finds it so."""


class NotYet(Exception):
    """The agent does not take it at this moment; `forbidden` when it does not know the token."""

    def __init__(self, text: str, forbidden: bool = False) -> None:
        super().__init__(text)
        self.forbidden = forbidden


@dataclass(frozen=True)
class Token:
    """A token that is asked for. `node`: it may write the node of this name."""

    name: str
    secret: str = field(repr=False)
    policy: str
    node: str = ""


@dataclass(frozen=True)
class Wanted:
    """Everything that is asked for: policies by name (rules), and tokens."""

    owner: str
    datacenter: str
    policies: Mapping[str, str]
    tokens: Sequence[Token]

    def policy_name(self, name: str) -> str:
        return name if name == MANAGEMENT_POLICY else f"{self.owner}-{name}"

    def mark(self, name: str) -> str:
        """The description by which a policy or token is known as ours."""
        return f"{self.owner}: {name}"

    def owns(self, description: str) -> bool:
        return description.startswith(f"{self.owner}: ")


@dataclass(frozen=True)
class Step:
    """One request that changes something. `text` tells it without secrets."""

    method: str
    path: str
    body: Mapping[str, Any] | None = field(repr=False)
    text: str


def accessor(token: Token, owner: str) -> str:
    """The public ID of a token: another secret has another one, so that a replaced token exists before the old one goes."""
    digest = hashlib.sha256(f"{owner}\0{token.name}\0{token.secret}".encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))


def wanted(
    owner: str,
    datacenter: str,
    policies: Mapping[str, str],
    tokens: Mapping[str, Sequence[str]],
    agents: Mapping[str, Sequence[str]],
    management: Sequence[str] = (),
) -> Wanted:
    """What a task asks for; ConsulError for what cannot be. Of a name there are as many tokens as it has secrets."""
    if agents and AGENT_POLICY not in policies:
        raise ConsulError(f"agents: their policy '{AGENT_POLICY}' is not among policies ({', '.join(sorted(policies)) or 'none are given'}).")
    if agents and not datacenter:
        raise ConsulError("agents: datacenter must say where the nodes are.")
    listed = [Token(name, secret, name) for name, secrets in sorted(tokens.items()) for secret in secrets]
    listed += [Token(f"agent-{node}", secret, AGENT_POLICY, node) for node, secrets in sorted(agents.items()) for secret in secrets]
    listed += [Token(MANAGEMENT_NAME, secret, MANAGEMENT_POLICY) for secret in management]
    for token in listed:
        if token.policy not in (*policies, MANAGEMENT_POLICY):
            raise ConsulError(f"tokens: '{token.name}' has no policy of that name; there are {', '.join(sorted(policies)) or 'none'}.")
        try:
            uuid.UUID(token.secret)
        except ValueError:
            raise ConsulError(f"tokens: the secret of '{token.name}' is not a UUID, which Consul requires. Remove its file to get a new one.") from None
    for name in policies:
        if not NAME.match(name):
            raise ConsulError(f"policies: '{name}' is not allowed; use letters, digits, '_' and '-', at most 100.")
    twice = {token.secret for token in listed if sum(other.secret == token.secret for other in listed) > 1}
    if twice:
        names = ", ".join(token.name for token in listed if token.secret in twice)
        raise ConsulError(f"tokens: {names} have the same secret; each must have one of its own. Remove the file of one of them to get a new one.")
    return Wanted(owner, datacenter, dict(policies), listed)


def steps(want: Wanted, policies: Iterable[Mapping[str, Any]], tokens: Iterable[Mapping[str, Any]], own_accessor: str) -> list[Step]:
    """What has to be done, in this order, so that what is there becomes what is asked for; nothing is taken away before its successor is there.

    :param policies: of the owner, with `ID`, `Name`, `Description`, `Rules`.
    :param tokens: all, with `AccessorID`, `Description`, `Policies`, `NodeIdentities`.
    :param own_accessor: of the management token that is used for this.
    """
    there = {str(policy["Name"]): policy for policy in policies}
    found = {str(token["AccessorID"]): token for token in tokens}
    made: list[Step] = []
    for name, rules in sorted(want.policies.items()):
        body = {"Name": want.policy_name(name), "Description": want.mark(name), "Rules": rules}
        old = there.get(body["Name"])
        if old is None:
            made.append(Step("PUT", "/v1/acl/policy", body, f"policy {body['Name']} is created"))
        elif (old.get("Rules"), old.get("Description")) != (rules, body["Description"]):
            made.append(Step("PUT", f"/v1/acl/policy/{old['ID']}", {**body, "ID": old["ID"]}, f"policy {body['Name']} is changed"))
    for token in want.tokens:
        made.extend(_token_steps(want, token, found))
    kept = {accessor(token, want.owner) for token in want.tokens}
    for identity, entry in sorted(found.items()):
        description = str(entry.get("Description", ""))
        # A rotated management token is one of ours, and in use.
        if want.owns(description) and identity not in kept and identity != own_accessor:
            made.append(Step("DELETE", f"/v1/acl/token/{identity}", None, f"token {description.partition(': ')[2]} ({identity}) is removed"))
        elif description in MANAGEMENT and identity != own_accessor:
            made.append(Step("DELETE", f"/v1/acl/token/{identity}", None, f"a former management token ({identity}) is removed"))
    names = {want.policy_name(name) for name in want.policies}
    for name, old in sorted(there.items()):
        if name not in names and want.owns(str(old.get("Description", ""))):
            made.append(Step("DELETE", f"/v1/acl/policy/{old['ID']}", None, f"policy {name} is removed"))
    return made


def _token_steps(want: Wanted, token: Token, found: Mapping[str, Mapping[str, Any]]) -> Iterable[Step]:
    identity = accessor(token, want.owner)
    nodes = [{"NodeName": token.node, "Datacenter": want.datacenter}] if token.node else []
    policy = want.policy_name(token.policy)
    body = {"AccessorID": identity, "Description": want.mark(token.name), "Policies": [{"Name": policy}], "NodeIdentities": nodes}
    old = found.get(identity)
    if old is None:
        yield Step("PUT", "/v1/acl/token", {**body, "SecretID": token.secret}, f"token {token.name} ({identity}) is created")
        return
    is_so = (
        old.get("Description"),
        [one.get("Name") for one in old.get("Policies") or []],
        [{key: one.get(key) for key in ("NodeName", "Datacenter")} for one in old.get("NodeIdentities") or []],
        [old.get(key) for key in ("ServiceIdentities", "Roles", "TemplatedPolicies") if old.get(key)],
    )
    if is_so != (body["Description"], [policy], nodes, []):
        yield Step("PUT", f"/v1/acl/token/{identity}", {**body, "SecretID": token.secret}, f"token {token.name} ({identity}) is changed")


def keyring_steps(keys: Sequence[str], answer: Sequence[Mapping[str, Any]]) -> list[Step]:
    """What has to be done so that all agents understand `keys` alone and use the first one.

    :param answer: of C(GET /v1/operator/keyring), an entry a pool with `NumNodes`, `Keys` (key -> how many agents have it) and `PrimaryKeys`.
    """
    has = [lambda key, pool=pool: pool["Keys"].get(key) == pool["NumNodes"] for pool in answer]
    uses = [lambda key, pool=pool: pool["PrimaryKeys"].get(key) == pool["NumNodes"] for pool in answer]
    made = [Step("POST", KEYRING, {"Key": key}, "a key is installed") for key in keys if not all(one(key) for one in has)]
    if not all(one(keys[0]) for one in uses):
        made.append(Step("PUT", KEYRING, {"Key": keys[0]}, "the current key is used"))
    others = sorted({key for pool in answer for key in pool["Keys"]} - set(keys))
    return made + [Step("DELETE", KEYRING, {"Key": key}, "a former key is removed") for key in others]


@dataclass
class Agent:
    """The API of an agent, by HTTPS with a client certificate and a token. Paths are files of this host."""

    address: str
    token: str = field(repr=False)
    authority: str = ""
    certificate: str = ""
    key: str = ""
    _context: ssl.SSLContext | None = field(default=None, repr=False)

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            try:
                context = ssl.create_default_context(cafile=self.authority)
                context.load_cert_chain(self.certificate, self.key)
            except (OSError, ssl.SSLError) as error:
                files = ", ".join((self.authority, self.certificate, self.key))
                raise NotReady(f"the certificates to talk to Consul with cannot be read ({files}): {error}. Run the play certificates first.") from None
            self._context = context
        return self._context

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON of the answer.

        :raises NotYet: when asking again may help (no answer, no leader, token not known yet).
        :raises ConsulError: when Consul refuses.
        """
        parts = urllib.parse.urlsplit(self.address)
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port or 443, timeout=CALL_LIMIT, context=self._tls())
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, {"X-Consul-Token": self.token})
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace").strip()
        except (OSError, http.client.HTTPException) as error:
            raise NotYet(f"the agent at {self.address} does not answer: {error or type(error).__name__}") from None
        finally:
            connection.close()
        return check_response(method, path, answer.status, text)


def check_response(method: str, path: str, status: int, text: str) -> Any:
    """What an answer means: its JSON (None for an empty one), or an exception as `Agent.request` has it."""
    if status == 200:
        try:
            return json.loads(text) if text else None
        except ValueError:
            raise ConsulError(f"{method} {path}: Consul's answer is not JSON: {text[:200]}") from None
    if status == 404 and method == "DELETE":
        return None
    said = f"{method} {path}: HTTP {status}: {text[:300] or 'no message'}"
    if status == 403 and re.search(r"ACL not found|token does not exist", text, re.IGNORECASE):
        raise NotYet(said, forbidden=True)
    if status == 429 or (status >= 500 and PASSING.search(text)):
        raise NotYet(said)
    raise ConsulError(f"{said}. Correct the task; `journalctl -u consul` on the servers may say more.")


def silent_servers(servers: Mapping[str, str], connect: Callable[..., Any] = socket.create_connection) -> str:
    """A sentence that names the servers (name -> address) which accept no connections from this host; "" when all do."""

    def is_closed(address: str) -> bool:
        try:
            connect((address, SERVER_PORT), timeout=PROBE_LIMIT).close()
        except OSError:
            return True
        return False

    names = [f"{name} ({address})" for name, address in servers.items() if is_closed(address)]
    return f"No server accepts connections on port {SERVER_PORT} at {', '.join(names)}. " if names else ""


@dataclass
class AccessControl:
    """What is there, read and changed through one agent, again and again until `timeout` seconds are over; `why` says more when they are."""

    ask: Callable[..., Any]
    timeout: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    why: Callable[[], str] = str

    def retry(self, work: Callable[[], Any]) -> Any:
        """The result of `work`, repeated whole while Consul is not ready for it.

        :raises ConsulError: when time is up, or Consul refuses.
        """
        start = self.clock()
        forbidden_since = None
        while True:
            try:
                return work()
            except NotYet as error:
                now = self.clock()
                forbidden_since = (forbidden_since or now) if error.forbidden else None
                if forbidden_since is not None and now - forbidden_since >= min(self.timeout, FORBIDDEN_LIMIT):
                    raise ConsulError(
                        f"Consul does not know the token ({error}). Its data belong to another site or an earlier set of secrets: restore "
                        "credentials/consul/tokens/management from your backup; if there is none and Consul's data may be lost, "
                        "stop consul on all servers, remove /var/lib/consul there and run again."
                    ) from None
                if now - start >= self.timeout:
                    raise NotReady(
                        f"Consul accepted no changes for {self.timeout:.0f} s; last: {error}. {self.why()}More than half of the servers must run and reach "
                        "each other on ports 8300 and 8301, at the very first start all of them: compare `journalctl -u consul` on the control nodes, "
                        "then run again."
                    ) from None
            self.sleep(PAUSE)

    def steps(self, want: Wanted) -> list[Step]:
        """What differs."""
        own = str(self.ask("GET", "/v1/acl/token/self")["AccessorID"])
        names = {want.policy_name(name) for name in want.policies}
        listed = [policy for policy in self.ask("GET", "/v1/acl/policies") if policy["Name"] in names or want.owns(policy.get("Description") or "")]
        full = [self.ask("GET", f"/v1/acl/policy/{policy['ID']}") for policy in listed]
        return steps(want, full, self.ask("GET", "/v1/acl/tokens"), own)

    def settle(self, want: Wanted, dry_run: bool) -> list[str]:
        """Make policies and tokens so; returns what was done, in words."""
        return self.carry_out(lambda: self.steps(want), dry_run)

    def carry_out(self, look: Callable[[], Iterable[Step]], dry_run: bool) -> list[str]:
        """Take the steps that `look` finds; returns them in words. It looks again after an interruption, for a request may have arrived without its answer."""
        done: list[str] = []

        def work() -> list[str]:
            for step in look():
                if not dry_run:
                    self.ask(step.method, step.path, step.body)
                if step.text not in done:
                    done.append(step.text)
            return done

        result: list[str] = self.retry(work)
        return result
