# SPDX-License-Identifier: Apache-2.0
"""How a run of a site looks on the screen."""

from __future__ import annotations

DOCUMENTATION = r"""
name: ashlar
type: stdout
short_description: Shows a run by layers, and ends with a page that says what to do next
version_added: 1.0.0
author: Ashlar developers (@ashlar)
description:
  - Prints a line for each play (C(layer | component)) with its hosts, what changed and the time it took; plays without hosts are not shown.
  - On a terminal a live line shows the running task, how many hosts are done, and the time. Elsewhere nothing moves, nothing is coloured
    unless E(ANSIBLE_FORCE_COLOR) is set, and a task that takes long is mentioned every 30 seconds.
  - After a failure the last thing printed is a summary by host with task, cause and remedy (from the result's C(problems), C(msg) and
    C(remedy)), and the command to run again (E(ASHLAR_COMMAND), or the one that was run).
  - After success the custom stat C(ashlar_page), when M(ansible.builtin.set_stats) has set it, is printed as the closing page, with the
    site's nodes, versions, slowest tasks and numbers. It maps titles to pairs, to a list of rows, or to text.
  - C(-v) shows every task, C(-vv) its results, C(--diff) differences.
  - The line of each host's numbers (C(ok= changed= ...)) is printed as by the default callback, since tools look for it.
  - C(site.yml) in check mode ends with its plan instead, that is, what would be done to which nodes, and which units would be interrupted.
extends_documentation_fragment:
  - result_format_callback
options:
  brief:
    description: Whether only the end is printed, without numbers. That is the closing page, the plan or the summary of failures.
    type: bool
    default: false
    env:
      - name: ASHLAR_BRIEF
  timings:
    description:
      - A file into which times and changes of all tasks by host, and the numbers of all hosts, are written as JSON at the end. With C(problems), what
        failed, and after C(site.yml) in check mode C(plan).
    type: path
    env:
      - name: ASHLAR_TIMINGS
  command:
    description: The command that is shown to be run again after a failure.
    type: str
    env:
      - name: ASHLAR_COMMAND
"""

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants as ansible_constants
from ansible import context
from ansible.plugins.callback import CallbackBase
from ansible.utils.color import stringc
from ansible_collections.ashlar.stack.plugins.plugin_utils import report

_CONSTANTS: Any = ansible_constants  # its names are made at run time
_STYLES = {
    "title": "bright blue",
    "good": _CONSTANTS.COLOR_OK,
    "changed": _CONSTANTS.COLOR_CHANGED,
    "bad": _CONSTANTS.COLOR_ERROR,
    "muted": "dark gray",
}
_REFRESH_SECONDS = 0.5
_REMINDER_SECONDS = 30
# A command that is retried reports its progress on a line that begins like this.
_PROGRESS = "progress: "
_INTERACTIVE = ("ansible.builtin.pause", "ansible.legacy.pause", "pause")
_ERASE = "\r\x1b[K"


def paint(text: str, style: str) -> str:
    """Colours where there are colours; see the report for the styles."""
    return str(stringc(text, _STYLES[style]))


class Ticker:
    """Says while a task runs that it does: as a line that is rewritten on a terminal, as a reminder now and then elsewhere.

    It writes by its own file descriptor and without buffers, so that worker processes, which are forked at any time, inherit nothing
    half-written.
    """

    def __init__(self, live: bool, descriptor: int, columns: int) -> None:
        self.live = live
        self.lock = threading.RLock()
        self._descriptor = descriptor
        self._columns = columns
        self._shown = False
        self._task: report.Task | None = None
        self._hosts: set[str] = set()
        self._reminded = 0.0
        self._progress = ""
        self._stopped = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def begin(self, task: report.Task) -> None:
        with self.lock:
            self._task, self._hosts, self._reminded, self._progress = task, set(), time.monotonic(), ""
            self._show()

    def expect(self, host: str) -> None:
        with self.lock:
            self._hosts.add(host)

    def tell(self, progress: str) -> None:
        with self.lock:
            self._progress = f": {progress}"

    def end(self) -> None:
        """Nothing is shown until the next task begins."""
        with self.lock:
            self.erase()
            self._task = None

    def stop(self) -> None:
        self._stopped.set()
        self.end()

    def erase(self) -> None:
        """Takes the live line away, so that something else can be printed in its place."""
        with self.lock:
            if self._shown:
                self._write(_ERASE)
                self._shown = False

    def _run(self) -> None:
        while not self._stopped.wait(_REFRESH_SECONDS):
            with self.lock:
                if self._task is None:
                    continue
                if self.live:
                    self._show()
                elif time.monotonic() - self._reminded >= _REMINDER_SECONDS:
                    self._reminded = time.monotonic()
                    self._write(self.text() + "\n")

    def text(self) -> str:
        """Where the run is: play, task, hosts done of hosts begun, time."""
        task = self._task
        if task is None:
            return ""
        waiting = sorted(self._hosts - set(task.hosts))
        begun = len(task.hosts) + len(waiting)
        done = f"{len(task.hosts)}/{begun} hosts, " if begun else ""
        taken = report.duration(time.monotonic() - task.started)
        _layer, play = report.layer_and_name(task.play)
        who = f"waiting for {report.some(waiting, 2)}, " if task.hosts and waiting else ""
        return f"  {play}: {task.name} ({done}{who}{taken}){self._progress}"

    def _show(self) -> None:
        if self.live:
            text = self.text()
            self._write(_ERASE + (text if len(text) < self._columns else text[: self._columns - 4] + "..."))
            self._shown = True

    def _write(self, text: str) -> None:
        try:
            os.write(self._descriptor, text.encode())
        except OSError:
            self._task = None


class CallbackModule(CallbackBase):
    """Records what happens, and prints what L(report) makes of it."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "ashlar.stack.ashlar"

    def __init__(self) -> None:
        super().__init__()
        self._started = time.monotonic()
        self._playbook = ""
        self._plays: list[report.Play] = []
        self._play: report.Play | None = None
        self._ansible_play: Any = None
        self._task: report.Task | None = None
        self._layer: str | None = None
        self._begun: dict[tuple[str, str], float] = {}
        self._brief = False
        self._failures: list[report.Failure] = []
        terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        columns = int(getattr(self._display, "columns", None) or report.WIDTH)
        self._width = max(60, min(report.WIDTH, columns)) if terminal else report.WIDTH
        self._ticker = Ticker(terminal, sys.stdout.fileno() if hasattr(sys.stdout, "fileno") else 1, columns)
        if terminal:
            self._give_way()

    def set_options(self, *arguments: Any, **options: Any) -> None:
        super().set_options(*arguments, **options)
        self._brief = bool(self.get_option("brief"))

    def _give_way(self) -> None:
        """Whatever else is displayed (warnings, prompts) first takes the live line away."""
        display = self._display.display
        own_process = os.getpid()

        def without_live_line(*arguments: Any, **options: Any) -> Any:
            if os.getpid() != own_process:
                # A forked worker has no live line, and may have been forked while the lock was held.
                return display(*arguments, **options)
            with self._ticker.lock:
                self._ticker.erase()
                return display(*arguments, **options)

        self._display.display = without_live_line  # type: ignore[method-assign]

    def _print(self, *lines: str) -> None:
        if self._brief:
            return
        self._print_always(*lines)

    def _print_always(self, *lines: str) -> None:
        for line in lines:
            self._display.display(line)

    # What begins and ends

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._playbook = os.path.basename(playbook._file_name)
        if context.CLIARGS.get("check"):
            self._print(paint(f"{self._playbook}: check mode, nothing is changed", "title"))

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._end_play()
        self._ansible_play = play
        self._play = report.Play(play.get_name().strip(), time.monotonic())

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        self._ticker.end()
        self._print(paint("  no host is left to go on with", "bad"))

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._begin_task(task)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._begin_task(task)

    def v2_playbook_on_vars_prompt(self, *arguments: Any, **options: Any) -> None:
        self._ticker.end()

    def _begin_task(self, task: Any) -> None:
        self._end_task()
        play = self._play or report.Play("", time.monotonic())
        self._task = report.Task(play.name, _task_name(task), time.monotonic())
        play.tasks.append(self._task)
        if task.action in _INTERACTIVE:
            self._ticker.end()
        else:
            self._ticker.begin(self._task)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self._begun[host.get_name(), task._uuid] = time.monotonic()
        self._ticker.expect(host.get_name())

    def _end_task(self) -> None:
        task, self._task = self._task, None
        self._ticker.end()
        if task and self._play and self._display.verbosity:
            self._title()
            done = "changed" if task.changes else "ok"
            label = f"    {report.duration(task.seconds):>10}  "
            self._print(
                label + paint(f"{task.name} ({report.count(len(task.hosts), 'host')}, {done})", "changed" if task.changes else "good")
            )

    def _end_play(self) -> None:
        self._end_task()
        play, self._play = self._play, None
        if play is None or not play.hosts:
            return
        play.seconds = time.monotonic() - play.started
        self._plays.append(play)
        self._title(play)
        self._print(report.play_line(play, paint), *report.change_lines(play, paint, self._width, 99 if self._display.verbosity else 2))

    def _title(self, play: report.Play | None = None) -> None:
        """The layer's name, before the first line of it."""
        current = play or self._play
        if current is None:
            return
        layer, _name = report.layer_and_name(current.name)
        if layer != self._layer:
            self._layer = layer
            if layer:
                self._print(paint(layer, "title"))

    # What hosts answer

    def _record(self, result: Any) -> report.Task:
        host = result.host.get_name()
        now = time.monotonic()
        task = self._task or report.Task(self._play.name if self._play else "", _task_name(result.task), now)
        task.hosts[host] = now - self._begun.pop((host, result.task._uuid), task.started)
        task.seconds = now - task.started
        self._handle_warnings(result.result)
        return task

    def v2_runner_on_ok(self, result: Any) -> None:
        task = self._record(result)
        host = result.host.get_name()
        if result.is_changed():
            task.changes[host] = report.changes_of(result.result)
        self._tell(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._record(result)
        self._tell(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        task = self._record(result)
        if self._display.verbosity:
            self._handle_exception(result.result)
        causes = report.causes_of(result.result)
        if ignore_errors:
            self._title()
            self._print(paint(f"  ignored  {self.host_label(result)}: {task.name}: {_first_line(causes[0].message)}", "muted"))
            return
        task.failed += 1
        self._fail(result, causes, unreachable=False)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        task = self._record(result)
        cause = report.unreachable_cause(result.result, result.host.get_name(), _address(result.host))
        if result.task.ignore_unreachable:
            self._title()
            self._print(paint(f"  ignored  {result.host.get_name()} could not be reached: {cause.message}", "muted"))
            return
        task.failed += 1
        self._fail(result, (cause,), unreachable=True)

    def _fail(self, result: Any, causes: tuple[report.Cause, ...], unreachable: bool) -> None:
        play = self._play.name if self._play else ""
        failure = report.Failure(
            host=result.host.get_name(),
            address=_address(result.host),
            task=f"{play}: {_task_name(result.task)}" if play else _task_name(result.task),
            where=_where(result.task),
            causes=causes,
            unreachable=unreachable,
        )
        self._failures.append(failure)
        what = "unreachable" if unreachable else "failed"
        self._title()
        self._print(paint(f"  {what}  {self.host_label(result)}: {_task_name(result.task)}: {_first_line(causes[0].message)}", "bad"))
        self._tell(result)

    def _tell(self, result: Any) -> None:
        """The result itself, where it is asked for: by C(-vv), or by a task whose purpose is to show something."""
        self._clean_results(result.result, result.task.action)
        if self._run_is_verbose(result, verbosity=1):
            self._title()
            message = result.result.get("msg")
            only = isinstance(message, str) and not [key for key in result.result if key != "msg" and not key.startswith("_")]
            said = message.replace("\n", "\n      ") if only else self._dump_results(result.result)
            self._print(f"    {self.host_label(result)}: {said}")

    def v2_runner_item_on_ok(self, result: Any) -> None:
        self._tell_item(result, "changed" if result.is_changed() else "ok", verbosity=1)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        self._tell_item(result, "skipped", verbosity=1)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        self._tell_item(result, "failed", verbosity=0)

    def _tell_item(self, result: Any, what: str, verbosity: int) -> None:
        self._handle_warnings(result.result)
        if self._run_is_verbose(result, verbosity=verbosity):
            label = self._get_item_label(result.result)
            self._clean_results(result.result, result.task.action)
            self._title()
            self._print(f"    {self.host_label(result)}: {what} ({label}): {self._dump_results(result.result)}")

    def v2_runner_retry(self, result: Any) -> None:
        said = str(result.result.get("stdout") or "")
        if said.startswith(_PROGRESS):
            self._ticker.tell(said.removeprefix(_PROGRESS))
        left = result.result.get("retries", 0) - result.result.get("attempts", 0)
        if self._display.verbosity:
            self._print(paint(f"    {self.host_label(result)}: not yet, {left} retries left", "muted"))

    def v2_on_file_diff(self, result: Any) -> None:
        results = result.result.get("results") if result.task.loop else [result.result]
        for each in results or ():
            if isinstance(each, Mapping) and each.get("diff") and each.get("changed"):
                difference = self._get_diff(each["diff"])
                if difference:
                    self._title()
                    self._print(paint(f"    {self.host_label(result)}: {_task_name(result.task)}", "changed"), difference.rstrip("\n"))

    # The end

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._end_play()
        self._ticker.stop()
        seconds = time.monotonic() - self._started
        numbers = {host: stats.summarize(host) for host in sorted(stats.processed)}
        failures = report.unrescued(self._failures, numbers)
        page = report.page_sections((stats.custom or {}).get("_run", {}).get("ashlar_page"))
        # Other playbooks have a plan of their own, of which this would be a part.
        plan = report.plan(self._plays) if context.CLIARGS.get("check") and self._playbook == "site.yml" else None

        if not failures and plan is not None:
            self._plan(plan, [host for host in numbers if host not in plan and host != "localhost"])
        elif not failures and page:
            self._page(page)
        if self._plays:
            changed = {host: each["changed"] for host, each in numbers.items()}
            self._print(*report.figures(self._plays, seconds, changed, paint, self._width, slowest=0 if failures else 5))
        self._print("", *(_painted_recap(host, each) for host, each in numbers.items()))
        if failures:
            command = self.get_option("command") or report.again(sys.argv)
            self._print_always(*report.failure_summary(failures, len(numbers), command, paint, self._width))
        self._write_timings(report.timings(self._plays, self._playbook, seconds, numbers, failures, plan))

    def _plan(self, plan: Mapping[str, Any], unchanged: list[str]) -> None:
        rolling = self._site_variables().get("component_rolling") or {}
        for title, content in report.plan_sections(plan, unchanged, rolling).items():
            self._print_always(*report.section(title, content, paint, self._width))

    def _page(self, page: Mapping[str, Any]) -> None:
        variables = self._site_variables()
        sections: dict[str, Any] = dict(page)
        if variables.get("site_nodes"):
            sections.setdefault("Nodes", report.node_rows(variables["site_nodes"], variables.get("component_nodes") or {}))
        if variables.get("artifact_versions"):
            sections.setdefault(
                "Versions", ", ".join(f"{name} {version}" for name, version in sorted(variables["artifact_versions"].items()))
            )
        for title, content in sections.items():
            self._print_always(*report.section(title, content, paint, self._width))

    def _site_variables(self) -> dict[str, Any]:
        """What the stack plugin gave to the group all; empty outside of a site."""
        manager = self._ansible_play.get_variable_manager() if self._ansible_play else None
        inventory = getattr(manager, "_inventory", None)
        group = inventory.groups.get("all") if inventory else None
        return dict(group.get_vars()) if group else {}

    def _write_timings(self, timings: Mapping[str, Any]) -> None:
        path = self.get_option("timings")
        if not path:
            return
        try:
            Path(path).write_text(json.dumps(timings, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            self._display.warning(f"the timings could not be written to {path} (ASHLAR_TIMINGS): {error.strerror}")


def _task_name(task: Any) -> str:
    """The task's own sentence, without the role that the play's name has told already."""
    name = str(task.get_name()).strip()
    if task._role:
        name = name.removeprefix(f"{task._role.get_name()} : ").removeprefix(f"{task._role.get_name(include_role_fqcn=False)} : ")
    if name.startswith("Validating arguments against arg spec"):
        return "The role's variables are valid"
    return name


def _where(task: Any) -> str:
    path = task.get_path() or ""
    return os.path.relpath(path) if path.startswith(os.getcwd() + os.sep) else path


def _address(host: Any) -> str:
    variables = host.get_vars()
    return str(variables.get("ansible_host") or variables.get("node_address") or "")


def _first_line(text: str) -> str:
    lines = text.strip().splitlines() or [""]
    return lines[0] if len(lines) == 1 else f"{lines[0]} ..."


def _painted_recap(host: str, numbers: Mapping[str, int]) -> str:
    line = report.recap_line(host, numbers)
    if numbers["failures"] or numbers["unreachable"]:
        return paint(line, "bad")
    return paint(line, "changed" if numbers["changed"] else "good")
