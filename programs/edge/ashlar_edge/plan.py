# SPDX-License-Identifier: Apache-2.0
"""Decides what to tell the running HAProxy: commands for what it can change, a reload for the rest. Compared with what it has, not with what
it was told, so that whatever failed before is made good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .model import Slot

# `srv_admin_state` of `show servers state`: in maintenance (0x04 says only that the configuration once said so); draining by command.
MAINTENANCE, DRAINING = 0x01 | 0x02 | 0x20, 0x08


@dataclass(frozen=True)
class Server:
    """A server line of the running process."""

    address: str
    port: int
    admin: int

    @property
    def state(self) -> str:
        return "free" if self.admin & MAINTENANCE else "drain" if self.admin & DRAINING else "up"


@dataclass(frozen=True)
class Running:
    """What a HAProxy says of itself: the structure it was started with, servers by (backend, name), maps by file name."""

    structure: str
    servers: Mapping[tuple[str, str], Server]
    maps: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Plan:
    """What is to be done. With `reload` commands are empty."""

    reload: bool
    commands: tuple[str, ...] = ()


def parse_servers(text: str) -> dict[tuple[str, str], Server]:
    """The answer to `show servers state` (management guide, 9.3): columns are named in the line that begins with '#'."""
    columns: list[str] = []
    found = {}
    for line in text.splitlines():
        if line.startswith("# "):
            columns = line[2:].split()
        elif columns and len(line.split()) >= len(columns):
            row = dict(zip(columns, line.split()))
            found[(row["be_name"], row["srv_name"])] = Server(row["srv_addr"], int(row["srv_port"]), int(row["srv_admin_state"]))
    return found


def parse_map(text: str) -> dict[str, str]:
    """The answer to `show map <file>`: a pointer, key and value a line."""
    rows = (line.split() for line in text.splitlines())
    return {row[1]: row[2] for row in rows if len(row) == 3 and row[0].startswith("0x")}


def plan(structure: str, slots: Mapping[str, Sequence[Slot]], maps: Mapping[str, Mapping[str, str]], folder: str, running: Running) -> Plan:
    """What brings a running HAProxy to the state wanted. `folder` is where it read its maps from."""
    if running.structure != structure:
        return Plan(reload=True)
    commands: list[str] = []
    for backend, wanted in slots.items():
        for number, slot in enumerate(wanted, 1):
            has = running.servers.get((backend, f"s{number}"))
            if has is None:
                return Plan(reload=True)
            commands += _server_commands(f"{backend}/s{number}", slot, has)
    # What arrives is routable before anything leads to it, and what leaves is led nowhere before it goes.
    for name, table in maps.items():
        file, has_table = f"{folder}/{name}", running.maps.get(name, {})
        commands += [f"add map {file} {key} {value}" for key, value in sorted(table.items()) if key not in has_table]
        commands += [f"set map {file} {key} {value}" for key, value in sorted(table.items()) if has_table.get(key, value) != value]
        commands += [f"del map {file} {key}" for key in sorted(has_table) if key not in table]
    return Plan(reload=False, commands=tuple(commands))


def _server_commands(name: str, slot: Slot, has: Server) -> list[str]:
    if slot.endpoint is None:
        return [] if has.state == "free" else [f"set server {name} state maint"]
    moved = (has.address, has.port) != (slot.endpoint.address, slot.endpoint.port)
    if slot.state == "up":
        commands = []
        if moved and has.state == "up":
            commands.append(f"set server {name} state maint")
        if moved:
            commands.append(f"set server {name} addr {slot.endpoint.address} port {slot.endpoint.port}")
        if moved or has.state != "up":
            commands.append(f"set server {name} state ready")
        return commands
    # A draining line whose address is another's already, or that a reload has disabled, has nothing to finish.
    return (
        [f"set server {name} state drain"]
        if has.state == "up" and not moved
        else [f"set server {name} state maint"]
        if has.state == "up"
        else []
    )
