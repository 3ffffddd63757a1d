# SPDX-License-Identifier: Apache-2.0
"""What a run says to the person who started it: lines made from records, without knowing where they are printed.

Lines are plain text; what is emphasised goes through a L(Paint), which tests and pipes leave out.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Paint = Callable[[str, str], str]
"""Text and one of the styles C(title), C(good), C(changed), C(bad), C(muted) to text."""

WIDTH = 100
_MOST_ROWS = 30
_MOST_CAUSE_LINES = 30
_LAST_OUTPUT_LINES = 8
_NAME_WIDTH = 26
_SECRET = re.compile(r"(?i)(pass|secret|token|key|credential)[^=:]*[=:]")

# How modules say what they changed: key of the result to the verb, in the order in which it is told.
_CHANGES = {
    "contents": "obtained",
    "artifacts": "installed",
    "packages": "installed",
    "issued": "issued",
    "changed_paths": "wrote",
    "written": "wrote",
    "dest": "wrote",
    "removed_paths": "removed",
    "removed": "removed",
    "started": "started",
    "restarted": "restarted",
    "reloaded": "reloaded",
    "stopped": "stopped",
}

# The same verbs as a plan has them.
_WOULD = {
    "obtained": "obtain",
    "installed": "install",
    "issued": "issue",
    "wrote": "write",
    "removed": "remove",
    "started": "start",
    "restarted": "restart",
    "reloaded": "reload",
    "stopped": "stop",
}
# Plays that do nothing to nodes: what they change is remembered on the controller.
_BOOKKEEPING = ("lock", "placement", "record", "unlock")

# What ssh says to what is most likely behind it; {at} is the host's address.
_UNREACHABLE = {
    r"port (?P<port>\d+): Connection refused": "nothing listens on port {port} of {at}: set ansible_port in 10-nodes.yml to the port of its SSH"
    " server, or start that (systemctl start ssh)",
    r"Permission denied": "the user or the key is not accepted: set ansible_user and ansible_ssh_private_key_file to those of `ssh <user>@{at}`"
    " that works, or ask for a password with --ask-pass",
    r"Too many authentication failures": "the SSH agent offers too many keys: set ansible_ssh_private_key_file and"
    " ansible_ssh_common_args: -o IdentitiesOnly=yes",
    r"Host key verification failed": "its host key is not the known one, or not known yet: log in once by hand (ssh {at}) and compare it; of a machine"
    " that was installed anew forget the old one first: ssh-keygen -R {at}",
    r"Could not resolve hostname": "set node_address or ansible_host in 10-nodes.yml to an address, or a name that resolves here",
    r"timed out|No route to host|Network is unreachable": "see that the machine runs, that its address {at} is right and routed from here, and that no"
    " firewall drops the packets (is there a bastion to go through?)",
    r"kex_exchange_identification|Connection (?:closed|reset) by": "what answers at {at} ends the connection: see that ansible_port is that of an SSH"
    " server, and there `journalctl -u ssh` (MaxStartups, AllowUsers, fail2ban)",
}


def plain(text: str, _style: str) -> str:
    """The L(Paint) of pipes and files."""
    return text


@dataclass
class Task:
    """One task of a play on all of its hosts; seconds are of the whole and of each host, changes by host as L(changes_of) gives them."""

    play: str
    name: str
    started: float
    seconds: float = 0.0
    hosts: dict[str, float] = field(default_factory=dict)
    changes: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    failed: int = 0


@dataclass
class Play:
    """A play that had hosts: how long it took and what it did."""

    name: str
    started: float
    seconds: float = 0.0
    tasks: list[Task] = field(default_factory=list)

    @property
    def hosts(self) -> set[str]:
        return {host for task in self.tasks for host in task.hosts}

    @property
    def changed(self) -> int:
        return sum(len(task.changes) for task in self.tasks)

    @property
    def failed(self) -> int:
        return sum(task.failed for task in self.tasks)


@dataclass(frozen=True)
class Cause:
    """Why a task failed, and what to do about it; without a remedy of its own, C(remedy) is empty."""

    message: str
    remedy: str = ""


@dataclass(frozen=True)
class Failure:
    """A task that ended a host's run. `where` is the file and line of the task."""

    host: str
    address: str
    task: str
    where: str
    causes: tuple[Cause, ...]
    unreachable: bool = False


def duration(seconds: float) -> str:
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def some(names: Iterable[str], most: int = 3) -> str:
    """The first of many names, and how many more there are."""
    listed = list(names)
    if len(listed) <= most + 1:
        return ", ".join(listed)
    return f"{', '.join(listed[:most])} and {len(listed) - most} more"


def layer_and_name(play: str) -> tuple[str, str]:
    """C(orchestration | kubernetes_control) is a component of a layer; any other name is a layer of its own."""
    layer, bar, name = play.partition(" | ")
    return (layer.strip(), name.strip()) if bar else ("", play.strip())


def changes_of(result: Mapping[str, Any]) -> dict[str, list[str]]:
    """What a result says that it changed: verb, such as C(wrote) or C(restarted), to names; empty when it does not say."""
    told: dict[str, list[str]] = {}
    for key, verb in _CHANGES.items():
        value = result.get(key)
        if isinstance(value, str):
            value = [value]
        if isinstance(value, Mapping):
            for name, detail in value.items():
                version = detail.get("to") if isinstance(detail, Mapping) else None
                told.setdefault("removed" if version == "" else verb, []).append(f"{name} {version}" if version else str(name))
        elif isinstance(value, Sequence) and value:
            told.setdefault(verb, []).extend(_named(each) for each in value if not isinstance(each, Mapping) or each.get("changed"))
    return {verb: list(dict.fromkeys(names)) for verb, names in told.items() if names}


def _named(each: Any) -> str:
    return f"{each.get('name', '')} {each.get('version', '')}".strip() if isinstance(each, Mapping) else str(each)


def describe(changes: Mapping[str, Sequence[str]], most: int = 2) -> str:
    """Changes as a sentence, such as C(wrote /etc/etcd/etcd.env; restarted etcd.service)."""
    return "; ".join(f"{verb} {some(names, most)}" for verb, names in changes.items())


def play_line(play: Play, paint: Paint) -> str:
    """What became of a play, in one line."""
    layer, name = layer_and_name(play.name)
    hosts = count(len(play.hosts), "host")
    if play.failed:
        outcome, style = f"{play.failed} failed", "bad"
    elif play.changed:
        outcome, style = f"{play.changed} changed", "changed"
    else:
        outcome, style = "ok", "good"
    indent = "  " if layer else ""
    label = f"{indent}{name}".ljust(_NAME_WIDTH)
    return f"{label} {hosts:<12}{paint(outcome.ljust(14), style)}{duration(play.seconds):>12}"


def change_lines(play: Play, paint: Paint, width: int = WIDTH, most: int = 2) -> list[str]:
    """What a play changed, by task; hosts on which the same was done are told together."""
    lines = []
    for task in play.tasks:
        together: dict[str, list[str]] = {}
        for host, changes in task.changes.items():
            together.setdefault(describe(changes, most), []).append(host)
        for change, hosts in together.items():
            everywhere = len(hosts) == len(play.hosts) and len(hosts) > 1
            on = "" if everywhere else f" ({some(sorted(hosts))})"
            lines += [paint(line, "changed") for line in _wrap(f"{task.name}{on}", width, "    ~ ", "      ")]
            lines += [paint(line, "muted") for line in _wrap(change, width, "      ", "      ")]
    return lines


def plan(plays: Iterable[Play]) -> dict[str, dict[str, dict[str, list[str]]]]:
    """What a run in check mode would do: host -> component -> verb (C(install), C(restart) ...) -> names. A task that does not say what it changes
    counts by its name."""
    hosts: dict[str, dict[str, dict[str, list[str]]]] = {}
    for play in plays:
        component = layer_and_name(play.name)[1].split()[0]
        if component in _BOOKKEEPING:
            continue
        for task in play.tasks:
            for host, changes in task.changes.items():
                would = hosts.setdefault(host, {}).setdefault(component, {})
                for verb, names in (changes or {"ensure:": [task.name]}).items():
                    known = would.setdefault(_WOULD.get(verb, verb), [])
                    known += [name for name in names if name not in known]
    return hosts


def plan_sections(
    hosts: Mapping[str, Mapping[str, Mapping[str, Sequence[str]]]], unchanged: Iterable[str], rolling: Mapping[str, Any]
) -> dict[str, Any]:
    """A L(plan) as sections to print: by component, and by node. Hosts for which it is the same are told together.

    :param unchanged: nodes of the run to which nothing would be done.
    :param rolling: the variable C(component_rolling).
    """
    components: dict[str, dict[str, list[str]]] = {}
    nodes: dict[str, list[str]] = {}
    for host, changes in hosts.items():
        for component, would in changes.items():
            components.setdefault(component, {}).setdefault(describe(_counted(would)), []).append(host)
        if host != "localhost":
            units = [
                f"{unit}{' in turn' if component in rolling else ''}"
                for component, would in changes.items()
                for unit in (*would.get("restart", ()), *would.get("stop", ()))
            ]
            nodes.setdefault(f"{count(len(changes), 'component')}, {'interrupts ' + ', '.join(units) if units else 'without interruption'}", []).append(host)
    if same := list(unchanged):
        nodes["nothing"] = same
    told = {component: "\n".join(f"{text} ({some(sorted(names))})" for text, names in texts.items()) for component, texts in components.items()}
    return {"What this would do": told or "nothing", "Nodes": {some(sorted(names), 4): text for text, names in nodes.items()}}


def _counted(would: Mapping[str, Sequence[str]], most: int = 3) -> dict[str, Sequence[str]]:
    """Without the names of many files and certificates; a unit or an artifact is always named."""
    things = {"write": "file", "issue": "certificate"}
    return {verb: [count(len(names), things[verb])] if verb in things and len(names) > most else names for verb, names in would.items()}


def causes_of(result: Mapping[str, Any]) -> tuple[Cause, ...]:
    """Why a task failed, from its result: problems with remedies, failed items, a message, or the end of what a program printed."""
    if "censored" in result:
        return (Cause("the result is hidden, for it may hold secrets (no_log)", "run the task's command by hand to see it"),)
    problems = result.get("problems")
    if isinstance(problems, Sequence) and problems and all(isinstance(problem, Mapping) for problem in problems):
        return tuple(Cause(str(problem.get("message", "")), str(problem.get("remedy") or "")) for problem in problems)
    items = [item for item in result.get("results") or () if isinstance(item, Mapping) and (item.get("failed") or item.get("unreachable"))]
    if items:
        return tuple(
            Cause(f"{_item(item)}: {cause.message}", cause.remedy) for item in items for cause in causes_of({**item, "results": ()})
        )
    remedy = str(result.get("remedy") or "")
    message = str(result.get("msg") or result.get("reason") or "").strip()
    for prefix in ("Task failed: ", "Action failed: ", "Module failed: "):
        message = message.removeprefix(prefix)
    printed = [
        line
        for key in ("stderr", "stdout", "module_stderr", "module_stdout")
        for line in str(result.get(key) or "").strip().splitlines()[-_LAST_OUTPUT_LINES:]
        if line.strip() and line.strip() not in message
    ]
    return (Cause("\n".join([message or "the task failed without a message", *printed]), remedy),)


def _item(item: Mapping[str, Any]) -> str:
    if item.get("_ansible_no_log"):
        return "an item that is hidden (no_log)"
    return str(item.get("_ansible_item_label", item.get("item", "")))


def unreachable_cause(result: Mapping[str, Any], host: str, address: str) -> Cause:
    """A host that did not answer: the transport's own last words, and what is most likely behind them."""
    message = str(result.get("msg") or "").strip().removeprefix("Task failed: ")
    said = ([line.strip() for line in message.splitlines() if line.strip()] or ["no answer"])[-1].rpartition("ssh: ")[2]
    likely = "see that the machine runs and that its SSH server answers at {at}"
    values: dict[str, str] = {}
    for pattern, remedy in _UNREACHABLE.items():
        found = re.search(pattern, said)
        if found:
            likely, values = remedy, found.groupdict()
            break
    return Cause(said, f"{likely.format(at=address or host, **values)}; to go on without it: --limit '!{host}'")


def unrescued(failures: Iterable[Failure], numbers: Mapping[str, Mapping[str, int]]) -> list[Failure]:
    """Failures that ended the run of their host, in their order. Those that a rescue dealt with came before.

    :param numbers: host -> its numbers, by Ansible's names.
    """
    rescued = {host: each["rescued"] for host, each in numbers.items()}
    left = []
    for failure in failures:
        each = numbers.get(failure.host)
        if each and rescued[failure.host]:
            rescued[failure.host] -= 1
        elif each and (each["failures"] or each["unreachable"]):
            left.append(failure)
    return left


def failure_summary(failures: Sequence[Failure], hosts: int, command: str, paint: Paint, width: int = WIDTH) -> list[str]:
    """The last thing on the screen when a run failed: by host, what failed, why, what to do, and the command to run again.

    Hosts that could not be reached come first, for others may have failed because of them.
    """
    failed = list(dict.fromkeys(failure.host for failure in failures))
    lines = ["", paint(f"Failed on {len(failed)} of {count(hosts, 'host')}", "bad")]
    together: dict[tuple[str, str, tuple[Cause, ...], bool], list[Failure]] = {}
    for failure in sorted(failures, key=lambda each: not each.unreachable):
        together.setdefault((failure.task, failure.where, failure.causes, failure.unreachable), []).append(failure)
    for (task, where, causes, unreachable), same in together.items():
        who = some((f"{each.host} ({each.address})" if each.address else each.host for each in same), 8)
        lines += ["", paint(who + (" could not be reached" if unreachable else ""), "title")]
        lines += _labelled("task", task, width)
        if where and not unreachable:
            lines += _labelled("where", where, width)
        for cause in causes:
            lines += _labelled("cause", _shortened(cause.message), width)
            if cause.remedy:
                lines += _labelled("remedy", cause.remedy, width)
    lines += ["", "When that is put right, run it again; it goes on from where it stopped:", f"  {command}", ""]
    return lines


def _shortened(text: str) -> str:
    lines = text.splitlines()
    if len(lines) <= _MOST_CAUSE_LINES:
        return text
    return "\n".join([*lines[:_MOST_CAUSE_LINES], f"... {len(lines) - _MOST_CAUSE_LINES} more lines; -v shows them"])


def _labelled(label: str, text: str, width: int) -> list[str]:
    lines = []
    for number, line in enumerate(text.splitlines() or [""]):
        indent = len(line) - len(line.lstrip())
        first = f"  {label if number == 0 else '':<8}" + " " * indent
        lines += _wrap(line.strip(), width, first, " " * (10 + indent))
    return lines


def _wrap(text: str, width: int, first: str, following: str) -> list[str]:
    """Wrapped between words only: paths, addresses and commands stay whole, so that they can be copied."""
    if not text:
        return []
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=following, break_long_words=False, break_on_hyphens=False)


def again(arguments: Sequence[str]) -> str:
    """The command that started this run. Values of variables that look like secrets are left out."""
    shown = []
    for position, argument in enumerate(arguments):
        flag, value = _extra_variables(arguments[position - 1] if position else "", argument)
        if value and _SECRET.search(value):
            shown.append(f"{flag}...")
        else:
            shown.append(shlex.quote(argument.rpartition("/")[2] if position == 0 else argument))
    return " ".join(shown)


def _extra_variables(before: str, argument: str) -> tuple[str, str]:
    """The part of an argument that is a flag and the part that gives variables; the latter is empty for all other arguments."""
    if before in ("-e", "--extra-vars"):
        return "", argument
    for flag in ("--extra-vars=", "-e"):
        if argument.startswith(flag):
            return flag, argument[len(flag) :]
    return "", ""


def table(rows: Sequence[Mapping[str, Any]], paint: Paint, width: int = WIDTH) -> list[str]:
    """Rows with the same keys as columns; the last column may be cut, and a long table is."""
    if not rows:
        return []
    columns = list(rows[0])
    texts = [[_text(row.get(column, "")) for column in columns] for row in rows[:_MOST_ROWS]]
    widths = [max(len(column), *(len(row[number]) for row in texts)) for number, column in enumerate(columns)]
    heading = "  ".join(column.ljust(size) for column, size in zip(columns, widths, strict=True)).rstrip()
    lines = [paint(f"  {heading}"[:width], "muted")]
    lines += ["  " + "  ".join(text.ljust(size) for text, size in zip(row, widths, strict=True)).rstrip() for row in texts]
    lines = [lines[0], *(line if len(line) <= width else f"{line[: width - 3]}..." for line in lines[1:])]
    if len(rows) > _MOST_ROWS:
        lines.append(f"  ... and {len(rows) - _MOST_ROWS} more")
    return lines


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(str(each) for each in value)
    return str(value)


def section(title: str, content: Any, paint: Paint, width: int = WIDTH) -> list[str]:
    """A part of the closing page: pairs as two columns, rows as a table, anything else as text. Lines that a pair's value has already stay as they are."""
    lines = ["", paint(title, "title")]
    if isinstance(content, Mapping):
        size = max((len(str(key)) for key in content), default=0)
        for key, value in content.items():
            first, rest, text = f"  {str(key).ljust(size)}  ", " " * (size + 4), _text(value)
            own = text.splitlines()
            lines += [first + own[0], *(rest + line for line in own[1:])] if len(own) > 1 else _wrap(text, width, first, rest)
    elif isinstance(content, Sequence) and not isinstance(content, str) and all(isinstance(row, Mapping) for row in content):
        lines += table(content, paint, width)
    else:
        for line in _text(content).splitlines():
            lines += _wrap(line, width, "  ", "  ")
    return lines


def page_sections(page: Any) -> dict[str, Any]:
    """The custom stat C(ashlar_page) as title to content: given as a dictionary, or as a list of them. What is empty is left out."""
    if isinstance(page, Mapping):
        shown = {str(title): _filled(content) for title, content in page.items()}
        return {title: content for title, content in shown.items() if content}
    if isinstance(page, Sequence) and not isinstance(page, str):
        return {title: content for part in page if isinstance(part, Mapping) for title, content in page_sections(part).items()}
    return {}


def _filled(content: Any) -> Any:
    """Without the pairs that have nothing to say on this site."""
    return {key: value for key, value in content.items() if value not in ("", None)} if isinstance(content, Mapping) else content


def node_rows(nodes: Mapping[str, Any], component_nodes: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """The table of a site's nodes, from its C(site_nodes) and C(component_nodes)."""
    counts: dict[str, int] = {}
    for names in component_nodes.values():
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    return [
        {
            "name": name,
            "address": node.get("address", ""),
            "classes": list(node.get("classes") or ()),
            "components": counts.get(name, 0),
        }
        for name, node in nodes.items()
    ]


def figures(
    plays: Sequence[Play], seconds: float, changed: Mapping[str, int], paint: Paint, width: int = WIDTH, slowest: int = 5
) -> list[str]:
    """How long it took, where the time went, how much was done."""
    tasks = [task for play in plays for task in play.tasks]
    per_host = host_tasks(plays)
    total = {"time": duration(seconds)}
    if per_host:
        busiest = max(per_host, key=lambda host: per_host[host])
        total["host-tasks"] = f"{sum(per_host.values())}, at most {per_host[busiest]} on one host ({busiest})"
    did = {host: number for host, number in changed.items() if number}
    total["changed"] = some((f"{host} {number}" for host, number in did.items()), 12) if did else "nothing"
    lines = section("This run", total, paint, width)
    longest = [task for task in sorted(tasks, key=lambda task: -task.seconds)[:slowest] if task.seconds >= 0.05]
    if longest:
        lines += ["", paint("Slowest tasks", "title")]
        for task in longest:
            lines += _wrap(f"{task.play}: {task.name}", width, f"  {duration(task.seconds):>12}  ", " " * 16)
    return lines


def host_tasks(plays: Sequence[Play]) -> dict[str, int]:
    """Host -> number of tasks that ran (or were skipped) there."""
    counts: dict[str, int] = {}
    for play in plays:
        for task in play.tasks:
            for host in task.hosts:
                counts[host] = counts.get(host, 0) + 1
    return counts


def timings(
    plays: Sequence[Play],
    playbook: str,
    seconds: float,
    stats: Mapping[str, Mapping[str, int]],
    failures: Sequence[Failure] = (),
    plan: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that was measured, for machines. All times are seconds; tasks are in the order in which they ran."""
    per_host = host_tasks(plays)
    return {
        "playbook": playbook,
        "seconds": round(seconds, 3),
        "plays": [{"name": play.name, "seconds": round(play.seconds, 3)} for play in plays],
        "tasks": [
            {
                "play": task.play,
                "name": task.name,
                "seconds": round(task.seconds, 3),
                "hosts": {host: round(taken, 3) for host, taken in task.hosts.items()},
                "changed": task.changes,
            }
            for play in plays
            for task in play.tasks
        ],
        "hosts": {host: {"host_tasks": per_host.get(host, 0), **dict(numbers)} for host, numbers in stats.items()},
        "problems": [
            {"host": failure.host, "task": failure.task, "message": f"{failure.host}: {cause.message}", "remedy": cause.remedy}
            for failure in failures
            for cause in failure.causes
        ],
        **({} if plan is None else {"plan": plan}),
    }


def recap_line(host: str, numbers: Mapping[str, int]) -> str:
    """The line in which tools look for what happened on a host, in the form that ansible-playbook has always had."""
    shown = {
        "ok": numbers["ok"],
        "changed": numbers["changed"],
        "unreachable": numbers["unreachable"],
        "failed": numbers["failures"],
        "skipped": numbers["skipped"],
        "rescued": numbers["rescued"],
        "ignored": numbers["ignored"],
    }
    return f"{host:<{_NAME_WIDTH}} : " + " ".join(f"{name}={number:<4}" for name, number in shown.items()).rstrip()
