# SPDX-License-Identifier: Apache-2.0
"""Policies and tokens of the catalogue: what is asked for is made, what is no longer asked for goes, and an interruption anywhere is made good."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.ashlar.stack.plugins.module_utils.consul import (
    AccessControl,
    ConsulError,
    NotYet,
    Token,
    Wanted,
    accessor,
    check_response,
    keyring_steps,
    silent_servers,
    wanted,
)

MANAGEMENT = "00000000-0000-4000-8000-000000000001"
EDGE, SYNC, NODE1, NEXT = (str(uuid.UUID(int=number, version=4)) for number in (11, 12, 13, 14))
READ = 'service_prefix "" { policy = "read" }'


def site(edge: str = EDGE, **policies: str) -> Wanted:
    return wanted("ashlar", "dc1", {"edge": READ, "agent": "", **policies}, {"edge": [edge]}, {"node1": [NODE1]})


class Consul:
    """A catalogue in memory. It refuses what Consul refuses; `fails` are moments (counted in changes) at which it loses its leader."""

    def __init__(self, fails: tuple[int, ...] = ()) -> None:
        self.policies: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, dict[str, Any]] = {
            MANAGEMENT: {"AccessorID": MANAGEMENT, "SecretID": "m", "Description": "Initial Management Token", "Policies": [{"Name": "global-management"}]}
        }
        self.changes, self.fails, self.used = 0, fails, "m"
        self.seen: list[str] = []

    def __call__(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        self.seen.append(f"{method} {path}")
        if method != "GET":
            self.changes += 1
            if self.changes in self.fails:
                raise NotYet("No cluster leader")
        kind, _, identity = path.removeprefix("/v1/acl/").partition("/")
        if (method, identity) == ("GET", "self"):
            return next(one for one in self.tokens.values() if one["SecretID"] == self.used)
        if method == "GET":
            if kind == "policies":
                return [{key: one[key] for key in ("ID", "Name", "Description")} for one in self.policies.values()]
            return list(self.tokens.values()) if kind == "tokens" else self.policies[identity]
        if method == "DELETE":
            (self.policies if kind == "policy" else self.tokens).pop(identity, None)
            return None
        return self._put(kind, identity, dict(body or {}))

    def _put(self, kind: str, identity: str, body: dict[str, Any]) -> Any:
        if kind == "policy":
            assert identity or body["Name"] not in {one["Name"] for one in self.policies.values()}, "Invalid Policy: a policy of that name exists"
            body["ID"] = identity or str(uuid.uuid5(uuid.NAMESPACE_DNS, body["Name"]))
            self.policies[body["ID"]] = body
            return body
        names = {one["Name"] for one in self.policies.values()}
        assert {one["Name"] for one in body["Policies"]} <= {*names, "global-management"}, "no such policy"
        if not identity:
            assert body["AccessorID"] not in self.tokens
            assert body["SecretID"] not in {one["SecretID"] for one in self.tokens.values()}
        elif self.tokens[identity]["SecretID"] != body["SecretID"]:
            raise AssertionError("Changing a token's SecretID is not permitted")
        self.tokens[body["AccessorID"]] = body
        return body

    def named(self) -> dict[str, str]:
        """Description -> secret of the tokens that are ours."""
        return {one["Description"]: one["SecretID"] for one in self.tokens.values() if one["Description"].startswith("ashlar: ")}


def settle(consul: Consul, want: Wanted, dry_run: bool = False) -> list[str]:
    clock = iter(range(10000))
    return AccessControl(consul, 60, clock=lambda: float(next(clock)), sleep=lambda _: None).settle(want, dry_run)


def test_everything_is_made_and_then_nothing_more() -> None:
    consul = Consul()
    done = settle(consul, site())
    assert len(done) == 4
    assert consul.named() == {"ashlar: edge": EDGE, "ashlar: agent-node1": NODE1}
    [node] = [one for one in consul.tokens.values() if one["Description"] == "ashlar: agent-node1"]
    assert node["NodeIdentities"] == [{"NodeName": "node1", "Datacenter": "dc1"}]
    assert {one["Name"] for one in consul.policies.values()} == {"ashlar-edge", "ashlar-agent"}
    assert settle(consul, site()) == []


def test_check_mode_says_it_and_does_not_do_it() -> None:
    consul = Consul()
    assert len(settle(consul, site(), dry_run=True)) == 4
    assert consul.changes == 0


def test_tokens_are_rotated_without_a_moment_in_which_one_in_use_is_not_there() -> None:
    consul = Consul()
    settle(consul, site())
    policies: dict[str, str] = {"edge": READ, "agent": ""}
    both = wanted("ashlar", "dc1", policies, {"edge": [EDGE, SYNC]}, {"node1": [NODE1]}, [NEXT])
    assert [step.split(" (")[0] for step in settle(consul, both)] == ["token edge", "token management"]
    consul.used = NEXT
    swapped = wanted("ashlar", "dc1", policies, {"edge": [SYNC, EDGE]}, {"node1": [NODE1]})
    assert settle(consul, swapped) == [f"a former management token ({MANAGEMENT}) is removed"]
    consul.tokens[MANAGEMENT] = {"AccessorID": MANAGEMENT, "SecretID": "m", "Description": "Initial Management Token", "Policies": []}
    done = settle(consul, wanted("ashlar", "dc1", policies, {"edge": [SYNC]}, {"node1": [NODE1]}))
    assert len(done) == 2, "a server that had not restarted yet made the former management token again"
    assert consul.named() == {"ashlar: edge": SYNC, "ashlar: agent-node1": NODE1, "ashlar: management": NEXT}


def test_gossip_keys_are_installed_used_and_removed_in_this_order() -> None:
    old, new = "old", "new"

    def steps_of(keys: list[str], **has: int) -> list[tuple[str, Any]]:
        answer = {"NumNodes": 3, "Keys": {old: 3, **has}, "PrimaryKeys": {old: 3}}
        return [(step.method, (step.body or {})["Key"]) for step in keyring_steps(keys, [answer])]

    assert steps_of([old]) == []
    assert steps_of([old, new]) == [("POST", new)]
    assert steps_of([old, new], new=2) == [("POST", new)], "one agent was away"
    assert steps_of([new, old], new=3) == [("PUT", new)]
    assert steps_of([new]) == [("POST", new), ("PUT", new), ("DELETE", old)]


def test_secrets_are_in_no_word_that_is_shown() -> None:
    consul = Consul()
    want = site()
    shown = json.dumps(settle(consul, want)) + repr(want.tokens) + " ".join(consul.seen)
    assert not [secret for secret in (EDGE, NODE1) if secret in shown]


def test_changed_rules_change_the_policy_alone() -> None:
    consul = Consul()
    settle(consul, site())
    want = wanted("ashlar", "dc1", {"edge": 'node_prefix "" { policy = "read" }', "agent": ""}, {"edge": [EDGE]}, {"node1": [NODE1]})
    assert settle(consul, want) == ["policy ashlar-edge is changed"]


def test_what_is_no_longer_asked_for_goes_and_what_others_made_stays() -> None:
    consul = Consul()
    settle(consul, wanted("ashlar", "dc1", {"edge": READ, "agent": "", "sync": READ}, {"edge": [EDGE], "sync": [SYNC]}, {"node1": [NODE1]}))
    consul("PUT", "/v1/acl/policy", {"Name": "mine", "Description": "by hand", "Rules": ""})
    theirs = {"AccessorID": "x", "SecretID": "s", "Description": "by hand", "Policies": [{"Name": "mine"}]}
    consul("PUT", "/v1/acl/token", theirs)
    done = settle(consul, site())
    assert [line.split(" (")[0] for line in done] == ["token sync", "policy ashlar-sync is removed"]
    assert "x" in consul.tokens
    assert MANAGEMENT in consul.tokens
    assert {one["Name"] for one in consul.policies.values()} == {"ashlar-edge", "ashlar-agent", "mine"}


def test_a_replaced_secret_is_there_before_the_former_goes() -> None:
    consul = Consul()
    settle(consul, site())
    consul.seen.clear()
    settle(consul, site(edge=SYNC))
    changes = [line for line in consul.seen if not line.startswith("GET")]
    assert [line.split()[0] for line in changes] == ["PUT", "DELETE"]
    assert consul.named()["ashlar: edge"] == SYNC


def test_a_former_management_token_goes() -> None:
    consul = Consul()
    consul.tokens["old"] = {"AccessorID": "old", "SecretID": "o", "Description": "Initial Management Token", "Policies": []}
    assert "a former management token (old) is removed" in settle(consul, site())
    assert MANAGEMENT in consul.tokens


@pytest.mark.parametrize("moment", range(1, 6))
def test_a_lost_leader_at_any_moment_is_waited_for(moment: int) -> None:
    consul = Consul(fails=(moment, moment + 1))
    settle(consul, site())
    undisturbed = Consul()
    settle(undisturbed, site())
    assert consul.tokens == undisturbed.tokens
    assert consul.policies == undisturbed.policies


def test_a_leader_that_never_comes_is_told() -> None:
    def ask(*_: Any) -> Any:
        raise NotYet("GET /v1/acl/token/self: HTTP 500: No cluster leader")

    clock = iter(range(10000))
    with pytest.raises(ConsulError, match=r"for 60 s; last: .*No cluster leader.*8300 and 8301"):
        AccessControl(ask, 60, clock=lambda: float(next(clock)), sleep=lambda _: None).settle(site(), False)


def test_servers_that_are_not_reached_are_named() -> None:
    class Open:
        def close(self) -> None: ...

    def connect(address: tuple[str, int], timeout: float) -> Open:
        if address[0] == "10.0.0.3":
            raise TimeoutError
        return Open()

    assert silent_servers({"node1": "10.0.0.1", "node3": "10.0.0.3"}, connect) == "No server accepts connections on port 8300 at node3 (10.0.0.3). "
    assert silent_servers({"node1": "10.0.0.1"}, connect) == ""


def test_a_token_that_is_not_known_is_told_before_the_time_is_up() -> None:
    def ask(*_: Any) -> Any:
        return check_response("GET", "/v1/acl/token/self", 403, "ACL not found")

    clock = iter(range(10000))
    with pytest.raises(ConsulError, match="does not know the token"):
        AccessControl(ask, 600, clock=lambda: float(next(clock)), sleep=lambda _: None).settle(site(), False)
    assert next(clock) < 60


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (500, "No cluster leader"),
        (500, "rpc error making call: leadership lost while committing log"),
        (429, "limit"),
        (503, "rpc error: code = Unavailable"),
    ],
)
def test_what_passes_by_itself_is_asked_again(status: int, text: str) -> None:
    with pytest.raises(NotYet):
        check_response("PUT", "/v1/acl/policy", status, text)


@pytest.mark.parametrize(("status", "text"), [(500, "Failed to parse ACL rules: 1:8: expected"), (403, "Permission denied"), (400, "Bad request")])
def test_what_is_wrong_is_told_at_once(status: int, text: str) -> None:
    with pytest.raises(ConsulError, match="PUT /v1/acl/policy: HTTP"):
        check_response("PUT", "/v1/acl/policy", status, text)


def test_answers_are_read() -> None:
    assert check_response("GET", "/x", 200, '{"a": 1}') == {"a": 1}
    assert check_response("PUT", "/x", 200, "") is None
    assert check_response("DELETE", "/x", 404, "not found") is None


@pytest.mark.parametrize(
    ("policies", "tokens", "agents", "said"),
    [
        ({}, {"edge": EDGE}, {}, "'edge' has no policy"),
        ({"edge": ""}, {"edge": "secret"}, {}, "is not a UUID"),
        ({"edge": ""}, {}, {"node1": NODE1}, "'agent' is not among policies"),
        ({"ed ge": ""}, {}, {}, "'ed ge' is not allowed"),
        ({"edge": "", "sync": ""}, {"edge": EDGE, "sync": EDGE}, {}, "edge, sync have the same secret"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_asked(policies: dict[str, str], tokens: dict[str, str], agents: dict[str, str], said: str) -> None:
    with pytest.raises(ConsulError, match=said):
        wanted("ashlar", "dc1", policies, *({name: [secret] for name, secret in given.items()} for given in (tokens, agents)))


def test_an_accessor_tells_nothing_and_stays() -> None:
    token = Token("edge", EDGE, "edge")
    assert accessor(token, "ashlar") == accessor(token, "ashlar") != accessor(Token("edge", SYNC, "edge"), "ashlar")
    assert uuid.UUID(accessor(token, "ashlar")).version == 4
