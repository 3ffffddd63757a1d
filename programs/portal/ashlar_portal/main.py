# SPDX-License-Identifier: Apache-2.0
"""Starts the portal, and takes new certificates and a new description of the site on SIGHUP."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import aiohttp
from aiohttp import web

from . import ask, model
from .web import Portal

LOG = logging.getLogger("portal")


def tell(state: str) -> None:
    """Tells systemd (sd_notify(3)), if it is there."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect("\0" + path[1:] if path.startswith("@") else path)
            channel.send(state.encode())


def server_context(settings: model.Settings) -> ssl.SSLContext:
    """:raises PortalError: when the certificate can't be used."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # Health checks shake hands each second and never come back to a session.
    made.num_tickets = 0
    made.options |= ssl.OP_NO_TICKET
    try:
        made.load_cert_chain(settings.certificate, settings.key)
    except (OSError, ssl.SSLError) as error:
        raise model.PortalError(f"{settings.certificate} and {settings.key} can't be used ({error}); site.yml issues them again.") from None
    return made


async def serve(settings: model.Settings, secrets: model.Secrets, site_path: str) -> None:
    """Serves until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    # Passwords are verified one at a time; more threads would only keep memory.
    loop.set_default_executor(ThreadPoolExecutor(max_workers=1))
    server = server_context(settings)
    client = ask.context(settings.authority, settings.client_certificate, settings.client_key)
    consul = settings.consul
    consul_client = ask.context(consul["authority"], consul["certificate"], consul["key"]) if consul else None
    stopped = asyncio.Event()
    timeout = aiohttp.ClientTimeout(total=settings.timeout_seconds * 2)
    session = aiohttp.ClientSession(
        # Each connection costs memory, and what it carries takes milliseconds: a few for each upstream, and not for long, are enough.
        connector=aiohttp.TCPConnector(limit=32, limit_per_host=3, keepalive_timeout=4),
        timeout=timeout,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )
    async with session:
        upstreams = ask.Upstreams(settings, secrets, session, client, consul_client)
        portal = Portal(settings, secrets, model.read_site(site_path), upstreams)

        def again() -> None:
            try:
                server.load_cert_chain(settings.certificate, settings.key)
                client.load_cert_chain(settings.client_certificate, settings.client_key)
                client.load_verify_locations(settings.authority)
                portal.use(model.read_site(site_path))
                LOG.info("took the certificates and the site anew")
            except (OSError, ssl.SSLError, model.PortalError) as error:
                LOG.error("kept what it had: %s", error)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        loop.add_signal_handler(signal.SIGHUP, again)
        runner = web.AppRunner(portal.application(), access_log=None, keepalive_timeout=75, handle_signals=False)
        await runner.setup()
        try:
            await web.TCPSite(runner, settings.address, settings.port, ssl_context=server, backlog=256).start()
            LOG.info("answers on https://%s:%s", settings.address, settings.port)
            # What is there now stays; what requests leave behind is to go soon, not to pile up.
            gc.collect()
            gc.freeze()
            gc.set_threshold(1000, 5, 5)
            tell("READY=1")
            await stopped.wait()
            tell("STOPPING=1")
        finally:
            await runner.cleanup()


def main(arguments: Sequence[str]) -> int:
    """The command line; 0 when it was told to stop, 1 when it can't start."""
    parser = argparse.ArgumentParser(prog="portal", description="The site in a browser.")
    parser.add_argument("--settings", default="/etc/portal/portal.json", help="how it works (default: %(default)s)")
    parser.add_argument("--secrets", default="/etc/portal/secrets.json", help="who may log in, and its keys (default: %(default)s)")
    parser.add_argument("--site", default="/etc/portal/site.json", help="what the site is (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # Broken handshakes of strangers and checks are no news.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    try:
        asyncio.run(serve(model.read_settings(chosen.settings), model.read_secrets(chosen.secrets), chosen.site))
    except model.PortalError as error:
        LOG.error("%s", error)
        return 1
    except OSError as error:
        LOG.error("can't listen: %s", error)
        return 1
    return 0
