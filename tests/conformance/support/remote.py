# SPDX-License-Identifier: Apache-2.0
"""Small programs that run on nodes, in the Python that Ansible needs there anyway."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reply:
    """Of a GET: the status (0: no HTTP answer), the body, and what went wrong below HTTP."""

    status: int
    body: str
    error: str


@dataclass(frozen=True)
class Resolution:
    """Of a DNS question: its response code (0 no error, 2 server failure, 3 no such name, -1 nothing came) and the answers as text."""

    code: int
    answers: list[str]


HTTPS = r"""
import json, ssl, sys, urllib.error, urllib.request
url, authority, pair, seconds = json.loads(sys.argv[1])
context = ssl.create_default_context(cafile=authority)
if pair:
    context.load_cert_chain(*pair)
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
try:
    with opener.open(url, timeout=seconds) as answer:
        reply = (answer.status, answer.read().decode(errors="replace"), "")
except urllib.error.HTTPError as error:
    reply = (error.code, error.read().decode(errors="replace"), "")
except Exception as error:
    reply = (0, "", "%s: %s" % (type(error).__name__, error))
print(json.dumps(dict(zip(("status", "body", "error"), reply))))
"""

CONNECT = r"""
import json, socket, sys
address, port, seconds = json.loads(sys.argv[1])
try:
    socket.create_connection((address, port), timeout=seconds).close()
    print(json.dumps("open"))
except ConnectionRefusedError:
    print(json.dumps("refused"))
except OSError:
    print(json.dumps("silent"))
"""

# RFC 1035; SRV is RFC 2782.
RESOLVE = r"""
import json, random, socket, struct, sys
server, name, kind, protocol, seconds = json.loads(sys.argv[1])
kinds = {"A": 1, "PTR": 12, "SRV": 33}
number = random.randrange(65536)
question = b"".join(bytes([len(part)]) + part.encode() for part in name.rstrip(".").split(".")) + b"\0"
message = struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + question + struct.pack(">2H", kinds[kind], 1)

def text(data, at):
    parts, end = [], None
    while data[at]:
        if data[at] >= 192:
            end = end or at + 2
            at = struct.unpack(">H", data[at:at + 2])[0] & 0x3FFF
        else:
            parts.append(data[at + 1:at + 1 + data[at]].decode())
            at += 1 + data[at]
    return ".".join(parts), end or at + 1

def exactly(connection, count):
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise OSError("closed")
        data += more
    return data

try:
    if protocol == "udp":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
            connection.settimeout(seconds)
            connection.sendto(message, (server, 53))
            data = connection.recv(65535)
    else:
        with socket.create_connection((server, 53), timeout=seconds) as connection:
            connection.sendall(struct.pack(">H", len(message)) + message)
            data = exactly(connection, struct.unpack(">H", exactly(connection, 2))[0])
except OSError:
    print(json.dumps({"code": -1, "answers": []}))
    sys.exit()
flags, _, count = struct.unpack(">3H", data[2:8])
at = text(data, 12)[1] + 4
answers = []
for _ in range(count):
    at = text(data, at)[1]
    what, _, _, length = struct.unpack(">HHIH", data[at:at + 10])
    at += 10
    if what == 1:
        answers.append(socket.inet_ntoa(data[at:at + 4]))
    elif what == 12:
        answers.append(text(data, at)[0])
    elif what == 33:
        answers.append("%d %s" % (struct.unpack(">H", data[at + 4:at + 6])[0], text(data, at + 6)[0]))
    at += length
print(json.dumps({"code": flags & 15, "answers": sorted(answers)}))
"""

# Answers whoever connects; ends by itself if nobody ends it, later than any test waits.
LISTEN = r"""
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
listener.settimeout(900)
while True:
    listener.accept()[0].close()
"""
