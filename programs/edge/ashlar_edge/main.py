# SPDX-License-Identifier: Apache-2.0
"""The command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from .apply import Edge, settings_of, slurp
from .model import EdgeError


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code: 0, or 1 when the edge could not be brought to what the catalogue says and stayed as it was."""
    parser = argparse.ArgumentParser(
        prog="ashlar-edge", description="Makes HAProxy follow a catalogue of services without losing a request."
    )
    parser.add_argument("--settings", default="/etc/haproxy/edge.json", help="where things lie and what is allowed (%(default)s)")
    verbs = parser.add_subparsers(dest="verb", required=True)
    apply = verbs.add_parser("apply", help="bring HAProxy to what the catalogue says; write files alone when it does not run")
    apply.add_argument("--catalogue", default="/var/lib/ashlar-edge/catalogue.json", help="what consul-template wrote (%(default)s)")
    apply.add_argument("--settings", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    told = verbs.add_parser("status", help="say which routes there are, and which were refused and why")
    told.add_argument("--fresh", action="store_true", help="fail when the catalogue was not read since this host started")
    chosen = parser.parse_args(arguments)
    os.umask(0o027)
    try:
        settings = settings_of(chosen.settings, {})
        if chosen.verb == "status":
            return status(slurp(settings.status), chosen.fresh)
        outcome = Edge(settings, chosen.catalogue).apply()
    except EdgeError as error:
        print(f"<3>{error}", file=sys.stderr)
        return 1
    if outcome.how not in ("unchanged", "files"):
        done = "reloaded" if outcome.how == "reload" else f"changed by {outcome.commands} commands"
        print(f"<6>{len(outcome.decision.owners)} routes, {len(outcome.refusals)} refused; HAProxy was {done}")
    return 0


def status(text: str | None, fresh: bool) -> int:
    """Print the status file for people; 1 when the edge is not what the catalogue says."""
    told = json.loads(text) if text else {}
    if "routes" not in told or (fresh and not told.get("catalogue")):
        print(
            "the edge has not read the catalogue since this host started; `journalctl -u consul-template -u ashlar-edge` says why",
            file=sys.stderr,
        )
        return 1
    for route in told["routes"]:
        print(f"{route['route']}  ->  {route['service']}, {route['instances']} instances{', login' if route['login'] else ''}")
    for one in told["refused"]:
        print(f"refused: {one['service'][:60]}, {one['route']}: {one['reason']}")
    if told["error"]:
        print(f"error: {told['error']}")
    return 1 if told["error"] else 0
