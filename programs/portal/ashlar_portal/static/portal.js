// SPDX-License-Identifier: Apache-2.0
// Reads the page anew from time to time and puts in what has changed, box by box. Without it the page is the same, of the time it was opened.
"use strict";

(() => {
  const seconds = Number(document.body.dataset.refresh);
  const offline = document.getElementById("offline");
  let since = Date.now();
  let timer = 0;
  let failures = 0;

  const busy = (box) => box.contains(document.activeElement) && document.activeElement.matches("input, select, textarea");
  const selected = (box) => {
    const selection = document.getSelection();
    return selection && !selection.isCollapsed && box.contains(selection.anchorNode);
  };

  function take(fresh) {
    for (const box of document.querySelectorAll("[data-box]")) {
      const other = fresh.getElementById(box.id);
      if (!other || busy(box) || selected(box) || box.innerHTML === other.innerHTML) continue;
      const open = [...box.querySelectorAll("details")].map((one) => one.open);
      const focused = box.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      box.className = other.className;
      box.replaceChildren(...other.childNodes);
      box.querySelectorAll("details").forEach((one, place) => { one.open = open[place] || false; });
      if (focused) box.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    }
    document.title = fresh.title;
  }

  async function refresh() {
    const url = new URL(location.href);
    url.searchParams.set("part", "1");
    try {
      const answer = await fetch(url, { credentials: "same-origin", cache: "no-store", signal: AbortSignal.timeout(10000) });
      if (answer.status === 401) { location.reload(); return; }
      if (!answer.ok) throw new Error(String(answer.status));
      take(new DOMParser().parseFromString(await answer.text(), "text/html"));
      since = Date.now();
      failures = 0;
      offline.hidden = true;
    } catch {
      failures += 1;
      offline.textContent = `The portal does not answer. What you see is ${Math.round((Date.now() - since) / 1000)} s old.`;
      offline.hidden = failures < 2;
    }
    plan();
  }

  function plan() {
    clearTimeout(timer);
    if (seconds > 0 && !document.hidden) timer = setTimeout(refresh, seconds * 1000);
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && seconds > 0 && Date.now() - since > seconds * 1000) refresh();
    else plan();
  });
  plan();
})();
