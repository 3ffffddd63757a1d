# SPDX-License-Identifier: Apache-2.0
"""The site's catalogue of services as a test uses it: register, ask, look who leads. Of the components that can fill the place, this one is Consul."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .nodes import Node
from .plan import Plan
from .remote import Reply
from .waiting import PATIENCE

# Speaks HTTPS with a client certificate (or none) and a token (or none).
CALL = r"""
import json, ssl, sys, http.client, time
method, host, port, path, token, body, pair, seconds = json.loads(sys.argv[1])
context = ssl.create_default_context(cafile="/etc/ashlar/pki/ca/consul.crt")
if pair:
    context.load_cert_chain(*pair)
try:
    connection = http.client.HTTPSConnection(host, port, timeout=seconds, context=context)
    connection.request(method, path, json.dumps(body) if body is not None else None, {"X-Consul-Token": token} if token else {})
    answer = connection.getresponse()
    reply = (answer.status, answer.read().decode(errors="replace"), "")
except Exception as error:
    reply = (0, "", "%s: %s" % (type(error).__name__, error))
print(json.dumps(dict(zip(("status", "body", "error", "at"), reply + (time.time(),)))))
"""

# Asks a name server again and again until a name has (or has not) an address; prints when that was, null when it never was.
WATCH = r"""
import json, random, socket, struct, sys, time
server, port, name, address, wanted, seconds, pause = json.loads(sys.argv[1])
question = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0\0\1\0\1"
end, at = time.time() + seconds, None
while time.time() < end:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(1)
        try:
            connection.sendto(struct.pack(">6H", random.randrange(65536), 0x0100, 1, 0, 0, 0) + question, (server, port))
            data = connection.recv(4096)
        except OSError:
            continue
    if data[3] & 15 in (0, 3) and (socket.inet_aton(address) in data[12 + len(question):]) == wanted:
        at = time.time()
        break
    time.sleep(pause)
print(json.dumps(at))
"""

# Asks one name for a while, ten times a second; prints what came how often, and the longest time without an answer.
STEADY = r"""
import collections, json, random, socket, struct, sys, time
server, name, address, seconds = json.loads(sys.argv[1])
question = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0\0\1\0\1"
seen, last, longest, end = collections.Counter(), time.time(), 0, time.time() + seconds
while time.time() < end:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(5)
        try:
            connection.sendto(struct.pack(">6H", random.randrange(65536), 0x0100, 1, 0, 0, 0) + question, (server, 53))
            data = connection.recv(4096)
            right = data[3] & 15 == 0 and socket.inet_aton(address) in data[12 + len(question):]
            seen["right" if right else "code %d" % (data[3] & 15)] += 1
        except OSError:
            right = False
            seen["silent"] += 1
    if right:
        longest, last = max(longest, time.time() - last), time.time()
    time.sleep(0.1)
print(json.dumps([seen, max(longest, time.time() - last)]))
"""

CLIENT = ["/etc/ashlar/pki/consul/client.crt", "/etc/ashlar/pki/consul/client.key"]


@dataclass(frozen=True)
class Moment:
    """An answer of the API and the node's own time of it."""

    reply: Reply
    at: float


@dataclass(frozen=True)
class Catalogue:
    """Consul, asked through the agents of nodes as the management token unless another is named."""

    plan: Plan

    def token(self, purpose: str) -> str:
        return (Path(self.plan.credentials) / "consul" / "tokens" / purpose).read_text().split()[0]

    def call(
        self, node: Node, method: str, path: str, body: Any = None, token: str | None = "management", certificate: bool = True, seconds: float = 8
    ) -> Moment:
        """A request to the agent of a node, made on this node; `token` names a purpose, None is without one."""
        secret = self.token(token) if token else ""
        found = node.python(CALL, method, "127.0.0.1", 8501, path, secret, body, CLIENT if certificate else None, seconds)
        return Moment(Reply(found["status"], found["body"], found["error"]), found["at"])

    def get(self, node: Node, path: str, token: str = "management") -> Any:
        """The JSON of a GET that has to succeed."""
        reply = self.call(node, "GET", path, token=token).reply
        assert reply.status == 200, f"{node.name}: GET {path}: {reply}"
        return json.loads(reply.body)

    def put(self, node: Node, path: str, body: Any = None) -> Moment:
        """A PUT that has to succeed."""
        made = self.call(node, "PUT", path, body)
        assert made.reply.status == 200, f"{node.name}: PUT {path}: {made.reply}"
        return made

    def register(self, node: Node, name: str, port: int, check: bool = False) -> float:
        """Registers a service on a node, with a check of its port or without; returns the node's time when the agent had taken it."""
        checks = [{"CheckID": f"{name}-port", "TCP": f"{node.address}:{port}", "Interval": "1s", "Timeout": "1s", "Status": "passing"}] if check else []
        return self.put(node, "/v1/agent/service/register", {"ID": name, "Name": name, "Port": port, "Checks": checks}).at

    def forget(self, node: Node, name: str) -> float:
        return self.put(node, f"/v1/agent/service/deregister/{name}").at

    def name(self, service: str) -> str:
        """Under which name a service is found."""
        return f"{service}.service.consul"

    def appears(self, node: Node, server: str, service: str, address: str) -> float | None:
        """The node's time when its name server first gave the address; None: it did not."""
        return self._watch(node, (server, 53), service, address, True)

    def appears_at_agent(self, node: Node, service: str, address: str) -> float | None:
        """The same of the node's own agent, which is asked as often as it takes to see milliseconds."""
        return self._watch(node, ("127.0.0.1", 8600), service, address, True, 0.002)

    def disappears(self, node: Node, server: str, service: str, address: str) -> float | None:
        """The node's time when its name server first did not give the address any more; None: it went on."""
        return self._watch(node, (server, 53), service, address, False)

    def _watch(self, node: Node, server: tuple[str, int], service: str, address: str, wanted: bool, pause: float = 0.02) -> float | None:
        at = node.python(WATCH, *server, self.name(service), address, wanted, PATIENCE, pause, seconds=PATIENCE + 10)
        return None if at is None else float(at)

    def steady(self, node: Node, server: str, service: str, address: str, seconds: float) -> tuple[dict[str, int], float]:
        """What came how often when the name was asked ten times a second, and the longest time in seconds without the address."""
        seen, longest = node.python(STEADY, server, self.name(service), address, seconds, seconds=int(seconds) + 15)
        return dict(seen), float(longest)

    def leader(self, node: Node) -> str:
        """Address of the leader as this node knows it; "" without one."""
        return str(self.get(node, "/v1/status/leader")).partition(":")[0]

    def servers(self, node: Node) -> list[dict[str, Any]]:
        """The voters, as the leader has them."""
        return list(self.get(node, "/v1/operator/raft/configuration")["Servers"])
