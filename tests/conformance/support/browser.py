# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium, driven by the DevTools protocol: what a page looks like, what its scripts say, and what went wrong in it.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def program() -> str | None:
    """Where this machine has a Chromium."""
    return next((found for found in map(shutil.which, NAMES) if found), None)


class Page:
    """A tab. `problems` are errors of its console, exceptions, and requests that failed or were answered with an error."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._waiting: dict[str, list[asyncio.Future[dict[str, Any]]]] = {}
        self.problems: list[str] = []
        self.requested: list[str] = []
        self._reader = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            said = json.loads(message.data)
            if "id" in said:
                future = self._answers.pop(said["id"], None)
                if future is not None and not future.done():
                    future.set_result(said)
                continue
            self._note(said["method"], said["params"])
            for future in self._waiting.pop(said["method"], []):
                if not future.done():
                    future.set_result(said["params"])

    def _note(self, method: str, what: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.problems.append(f"exception: {what['exceptionDetails'].get('exception', {}).get('description') or what['exceptionDetails']['text']}")
        elif method == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
            self.problems.append(f"console: {' '.join(str(one.get('value', one.get('description', ''))) for one in what['args'])}")
        elif method == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"log: {what['entry']['text']} {what['entry'].get('url', '')}")
        elif method == "Network.loadingFailed" and not what.get("canceled"):
            self.problems.append(f"failed: {what['errorText']}")
        elif method == "Network.responseReceived" and what["response"]["status"] >= 400:
            self.problems.append(f"{what['response']['status']}: {what['response']['url']}")
        elif method == "Network.requestWillBeSent":
            self.requested.append(what["request"]["url"])

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command; its result."""
        self._number += 1
        future = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        answer = await asyncio.wait_for(future, 120)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error'].get('message')}")
        return dict(answer["result"])

    async def start(self) -> None:
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")

    async def loads(self, work: Callable[[], Awaitable[Any]]) -> None:
        """Until what `work` does has loaded a page."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault("Page.loadEventFired", []).append(future)
        await work()
        await asyncio.wait_for(future, 120)

    async def open(self, url: str) -> None:
        """Another page, once it is loaded."""
        await self.loads(lambda: self.call("Page.navigate", url=url))

    async def run(self, script: str) -> Any:
        """What an expression of JavaScript gives."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script[:80]}: {answer['exceptionDetails'].get('exception', {}).get('description')}")
        return answer["result"].get("value")

    async def look(self, width: int, height: int, scheme: str = "light", scale: float = 1, phone: bool = False) -> None:
        """From now on a screen of that many CSS pixels, light or dark."""
        await self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone)
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def picture(self, path: Path, height: int = 0, scale: float = 1) -> None:
        """The page from its top, as PNG: so many CSS pixels of it, or all."""
        size = (await self.call("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(height or size["height"], size["height"]), "scale": scale}
        options: dict[str, Any] = {"format": "png", "captureBeyondViewport": True, "clip": clip}
        path.write_bytes(base64.b64decode((await self.call("Page.captureScreenshot", **options))["data"]))


@asynccontextmanager
async def browser(*options: str) -> AsyncIterator[Page]:
    """A tab of a browser of its own, which is gone afterwards. Certificates are not looked at."""
    found = program()
    if found is None:
        raise RuntimeError("there is no Chromium on this machine: apt-get install chromium")
    folder = Path(tempfile.mkdtemp(prefix="ashlar-browser-"))
    command = [found, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-background-networking"]
    command += ["--disable-dev-shm-usage", "--ignore-certificate-errors", "--remote-debugging-port=0", f"--user-data-dir={folder}", *options, "about:blank"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)
    try:
        port = await asyncio.wait_for(_port(folder / "DevToolsActivePort"), 120)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                target = next(one for one in await answer.json() if one["type"] == "page")
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                await page.start()
                yield page
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 10)
            except asyncio.TimeoutError:
                process.kill()
                await process.wait()
        shutil.rmtree(folder, ignore_errors=True)


async def _port(file: Path) -> int:
    while True:
        try:
            return int(file.read_text().split()[0])
        except (OSError, IndexError, ValueError):
            await asyncio.sleep(0.1)
