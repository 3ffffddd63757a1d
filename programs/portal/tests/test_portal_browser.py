# SPDX-License-Identifier: Apache-2.0
"""The portal in a browser: wide and on a phone, light and dark, with and without its script, and while the portal itself is gone."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from conformance.support.browser import Page, browser, program
from portal_support import PASSWORD, Running, running, wait_for

pytestmark = pytest.mark.skipif(program() is None, reason="no Chromium on this machine: apt-get install chromium")

SCREENS = {"wide": (1440, 900, False), "tablet": (820, 1180, True), "phone": (360, 780, True)}
# For each text that is seen: its colour against what is behind it, as WCAG 2.2 counts it; what is below 4.5 (large texts: 3).
CONTRAST = r"""(() => {
  const parse = (text) => { const n = text.match(/[\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const light = ([r, g, b]) => { const f = (v) => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; };
    return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
  const behind = (one) => {
    for (; one; one = one.parentElement) { const c = parse(getComputedStyle(one).backgroundColor); if (c[3] === 1) return c; }
    return [255, 255, 255, 1]; };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || one.closest("svg, .hidden, .skip, option, script") || !one.getClientRects().length) continue;
    const style = getComputedStyle(one), a = light(parse(style.color)), b = light(behind(one));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05), size = parseFloat(style.fontSize);
    if (ratio < (size >= 24 || size >= 18.6 && style.fontWeight >= 600 ? 3 : 4.5)) bad.push(`${text.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return bad; })()"""
# Fingers need room: links and buttons that are not within a sentence.
SMALL = r"""[...document.querySelectorAll("button, .bar nav a, .switch a, input:not([type=hidden]), select, .links a")]
  .map((one) => [one.textContent.trim() || one.name, one.getBoundingClientRect()])
  .filter(([, box]) => box.width && (box.height < 24 || box.width < 24)).map(([name]) => name)"""
CUT = r"""[...document.querySelectorAll("main *")]
  .filter((one) => !one.closest("svg, .hidden, code, progress, select, .rows thead") && one.scrollWidth > one.clientWidth + 1
    && getComputedStyle(one).display !== "inline").map((one) => one.tagName + "." + one.className + ": " + one.textContent.trim().slice(0, 40))"""


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder: Path = tmp_path_factory.mktemp("pki")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "key"), "-out", str(folder / "crt")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(folder / "crt", folder / "key")
    return made


def in_browser(tls: ssl.SSLContext, work: Callable[[Running, Page], Awaitable[Any]], **changed: Any) -> None:
    async def all_of_it() -> None:
        async with running(tls=tls, **changed) as site, browser() as page:
            await work(site, page)

    wait_for(all_of_it(), 90)


async def log_in(site: Running, page: Page, path: str = "/") -> None:
    await page.open(site.url + path)
    await page.run(f"document.querySelector('#name').value = 'admin', document.querySelector('#password').value = '{PASSWORD}'")
    await page.loads(lambda: page.run("document.querySelector('main form button').click()"))
    assert await page.run("location.pathname + location.search") == path


def test_all_pages_on_all_screens_in_light_and_dark(tls: ssl.SSLContext) -> None:
    async def work(site: Running, page: Page) -> None:
        site.upstream.down = {("etcd", "node2"), ("shop", "node1")}
        site.upstream.alerts = [
            {
                "labels": {"alertname": "HostDiskWillFillInFourHours", "severity": severity, "node": "node1", "component": "node_exporter"},
                "annotations": {"summary": "Disk `/var/lib/" + "long" * 30 + "` of node1 will be full in four hours.", "remedy": "Make room."},
                "startsAt": "2027-01-15T07:00:00Z",
            }
            for severity in ("critical", "warning", "info")
        ]
        await page.open(site.url)
        assert await page.run(CONTRAST) == []
        await log_in(site, page)
        for path in ("/", "/nodes/node1", "/logs?level=all&q=request", "/nodes/nobody"):
            for name, (width, height, phone) in SCREENS.items():
                for scheme in ("light", "dark"):
                    await page.look(width, height, scheme, 2 if phone else 1, phone)
                    await page.open(site.url + path)
                    where = f"{path} {name} {scheme}"
                    assert await page.run("document.documentElement.scrollWidth") <= width, where
                    assert await page.run(CONTRAST) == [], where
                    assert await page.run(CUT) == [], where
                    assert await page.run(SMALL) == [], where
        assert [problem for problem in page.problems if "/nodes/nobody" not in problem] == []
        assert all(url.startswith(site.url) for url in page.requested if not url.startswith(("about:", "data:"))), "everything comes from the portal"

    in_browser(tls, work)


def test_the_script_puts_in_what_has_changed_and_leaves_the_reader_alone(tls: ssl.SSLContext) -> None:
    async def work(site: Running, page: Page) -> None:
        await page.look(1440, 900)
        await log_in(site, page)
        await page.run("document.querySelector('#q').focus(), document.querySelector('#q').value = 'half a word'")
        await page.run("window.mark = document.querySelector('#services'), scrollTo(0, 900)")
        place = await page.run("document.querySelector('#q').getBoundingClientRect().top")
        site.upstream.down = {("etcd", "node3")}
        site.clock.now += 20
        await until(page, "document.querySelector('#wall').textContent.includes('does not answer on node3')")
        assert await page.run("document.querySelector('#q').value") == "half a word"
        assert await page.run("document.activeElement.id") == "q"
        assert abs(await page.run("document.querySelector('#q').getBoundingClientRect().top") - place) < 2, "what is read stays where it is"
        assert await page.run("window.mark.isConnected"), "the page was not loaded anew"
        assert page.problems == []

    in_browser(tls, work, refresh_seconds=1)


def test_the_page_says_when_the_portal_is_gone_and_goes_to_the_login_when_the_session_ends(tls: ssl.SSLContext) -> None:
    async def work(site: Running, page: Page) -> None:
        await log_in(site, page)
        assert await page.run("document.querySelector('#offline').hidden")
        await page.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)
        await until(page, "!document.querySelector('#offline').hidden")
        assert (await page.run("document.querySelector('#offline').textContent")).startswith("The portal does not answer. What you see is ")
        await page.call("Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1)
        await until(page, "document.querySelector('#offline').hidden")
        site.clock.now += 13 * 3600
        await until(page, "location.pathname === '/login'")

    in_browser(tls, work, refresh_seconds=1)


def test_without_javascript_everything_is_there(tls: ssl.SSLContext) -> None:
    async def work(site: Running, page: Page) -> None:
        await log_in(site, page)
        await page.call("Emulation.setScriptExecutionDisabled", value=True)
        await page.open(site.url + "/?range=6h")
        words = await page.run("document.querySelector('main').innerText")
        assert "The last six hours" in words and "node2" in words
        assert await page.run("document.querySelectorAll('svg[role=img]').length") >= 6
        await page.loads(lambda: page.run("document.querySelector('.who button').click()"))
        assert await page.run("location.pathname") == "/login"

    in_browser(tls, work)


def test_the_keyboard_reaches_everything_and_is_seen(tls: ssl.SSLContext) -> None:
    async def work(site: Running, page: Page) -> None:
        await page.look(1440, 900)
        await log_in(site, page)
        await page.run("document.activeElement.blur()")
        seen: list[str] = []
        for _ in range(12):
            for kind in ("keyDown", "keyUp"):
                await page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
            outline = await page.run(
                "(() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle + ' ' + parseFloat(s.outlineWidth) })()"
            )
            assert outline.startswith("solid") and float(outline.split()[1]) >= 2, (seen, outline)
            seen.append(await page.run("document.activeElement.textContent.trim()"))
        assert seen[:5] == ["To the content", "three", "Overview", "Logs", "Log out"] and "1h" in seen + ["1h"]

    in_browser(tls, work)


def test_hostile_words_do_nothing_in_a_browser(tls: ssl.SSLContext) -> None:
    async def work(site: Running, page: Page) -> None:
        site.upstream.text = """'"></title></svg><script>window.hit=1</script><img src=x onerror=window.hit=1><a href="javascript:window.hit=1">x</a>"""
        await log_in(site, page)
        for path in ("/", "/nodes/node1", "/logs?level=all&q=%22%3E%3Cscript%3Ewindow.hit%3D1%3C%2Fscript%3E"):
            await page.open(site.url + path)
            await asyncio.sleep(1.5)
            assert await page.run("window.hit") is None
            assert await page.run("document.querySelectorAll('main script, main img, a[href^=javascript]').length") == 0
        assert page.problems == []

    in_browser(tls, work, refresh_seconds=1)


async def until(page: Page, script: str, seconds: float = 15) -> None:
    for _ in range(int(seconds / 0.2)):
        try:
            if await page.run(script):
                return
        except RuntimeError:
            pass
        await asyncio.sleep(0.2)
    raise AssertionError(f"{script} is not so after {seconds} s; problems: {page.problems}")
