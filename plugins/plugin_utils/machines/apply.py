# SPDX-License-Identifier: Apache-2.0
"""Makes and unmakes a site's machines: the root that its node file names is planned, what the plan means is decided, that plan is applied.

Decisions (``read_changes``, ``refusal``, ``describe``) are pure; ``Applier`` is the tool. Plans are read as JSON in the documented format:
https://developer.hashicorp.com/terraform/internals/json-format, which OpenTofu keeps.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.options import path_of
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.states.model import StateFault
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.states.source import local_state
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.states.tool import Tool, find_tool
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import SiteError
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import read_yaml

PLUGIN = "ashlar.stack.terraform"
SUFFIXES = ("terraform.yml", "terraform.yaml")
LOCK_SECONDS = 30
# Where data lies that no output names. Machines themselves are known by the output `nodes`.
DATA = frozenset(
    "aws_ebs_volume google_compute_disk google_compute_region_disk openstack_blockstorage_volume_v2 openstack_blockstorage_volume_v3 azurerm_managed_disk "
    "hcloud_volume".split()
)
MACHINES = frozenset("aws_instance google_compute_instance openstack_compute_instance_v2".split())
# How terraform/local says that a node is gone already, so that making it anew takes nothing away.
LOST = re.compile(r'(?:.*\.)?terraform_data\.generation\["([^"]+)"\]')
_REMEDIES = (
    (
        r"(?i)error acquiring the state lock|state (is )?locked",
        f"Another run holds the state, and did not let go of it within {LOCK_SECONDS} s. Wait until it has ended. "
        "If there is none (it was killed), run in the root: {tool} force-unlock ID",
    ),
    (
        r"(?i)credential|unauthori[sz]ed|access ?denied|forbidden|authentication|auth_url|\b40[13]\b",
        "Give the provider's credentials by its usual ways (environment, profile, clouds.yaml ...) and run again.",
    ),
    (r"(?i)quota|limit ?exceeded|insufficient.*capacity", "The provider has no room for it. Raise the quota or take another size, then run again."),
    (r"(?i)no value for required variable", "Give it in a file that var_files of the site's node file names, such as machines.tfvars."),
    (r"(?i)failed to (query|install|instantiate) .*provider|could not connect to registry", "The provider can't be downloaded here. See terraform/README.md."),
)


class MachinesError(Exception):
    """What the operator reads: what is wrong, where, and the way on."""


@dataclass(frozen=True, slots=True)
class Root:
    """A root of the site. ``file`` is the node file that names it."""

    folder: Path
    file: Path
    workspace: str | None = None
    binary: str | None = None
    var_files: tuple[Path, ...] = ()
    prefix: str = ""

    @property
    def shown(self) -> str:
        place = os.path.relpath(self.folder)
        return f"{self.folder if place.startswith('../../..') else place}{f' (workspace {self.workspace})' if self.workspace else ''}"


@dataclass(frozen=True, slots=True)
class Change:
    """One object of a plan. ``action``: create, update, delete or replace. ``because``: attributes that differ, or that force a replacement."""

    address: str
    type: str
    action: str
    because: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """What a plan would do. Machines by node name: made, ended, replaced (ended and made), lost (gone already, made anew), altered."""

    objects: tuple[Change, ...] = ()
    made: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    outputs: bool = False

    @property
    def any(self) -> bool:
        return bool(self.objects) or self.outputs


def roots_of(directory: Path) -> list[Root]:
    """The roots that the site's node files name, in their order.

    :raises MachinesError: there is none, or a file can't be read.
    """
    files = sorted(file for file in directory.iterdir() if file.name.endswith(SUFFIXES)) if directory.is_dir() else []
    roots: list[Root] = []
    named: list[str] = []
    for file in files:
        try:
            content = read_yaml(file)
        except SiteError as error:
            raise MachinesError(f"{file} {error.problems[0].text}") from None
        if not isinstance(content, dict) or content.get("plugin") != PLUGIN:
            continue
        named.append(file.name)
        for source in content.get("sources") or ():
            if isinstance(source, dict) and source.get("root"):
                roots.append(
                    Root(
                        folder=path_of(source["root"], directory),
                        file=file,
                        workspace=source.get("workspace"),
                        binary=source.get("binary"),
                        var_files=tuple(path_of(name, directory) for name in source.get("var_files") or ()),
                        prefix=str(source.get("prefix") or ""),
                    )
                )
    if not roots:
        found = f"{', '.join(named)} names states, and no root" if named else "it has no node file of the plugin ashlar.stack.terraform"
        raise MachinesError(
            f"{directory}: there is nothing to make machines from: {found}. "
            "Write 10-nodes.terraform.yml with `sources: [{root: ../../terraform/<cloud>, var_files: [machines.tfvars]}]`, as sites in inventories/ have."
        )
    for root in roots:
        for file in root.var_files:
            if not file.is_file():
                raise MachinesError(f"{root.file}: var_files names {file}, which is not there. Write it; {root.shown}/variables.tf says what it may hold.")
        if not root.folder.is_dir():
            raise MachinesError(f"{root.file}: root is {root.folder}, which is no folder. Allowed: a folder of Terraform's files; correct the path.")
    return roots


def read_changes(plan: Mapping[str, Any], output: str = "nodes") -> Changes:
    """What a plan (``show -json``) would do."""
    objects: list[Change] = []
    for one in plan.get("resource_changes") or ():
        change, kind = one.get("change") or {}, str(one.get("type"))
        actions = tuple(change.get("actions") or ())
        if one.get("mode") == "data" or actions in ((), ("no-op",), ("read",)):
            continue
        action = "replace" if len(actions) == 2 else {"forget": "delete"}.get(actions[0], actions[0])
        objects.append(Change(str(one.get("address")), kind, action, _because(change, action)))
    lost = {match[1] for one in objects if one.action == "update" and (match := LOST.fullmatch(one.address))}

    nodes = (plan.get("output_changes") or {}).get(output) or {}
    before, after = _mapping(nodes.get("before")), _mapping(nodes.get("after"))
    unknown = nodes.get("after_unknown")
    if unknown is True:
        after, unknown = before, {}
    replaced, altered = [], []
    for name in after:
        if name in before:
            not_known = _mapping(_mapping(unknown).get(name))
            if before[name].get("id") and (not_known.get("id") or after[name].get("id") != before[name].get("id")):
                replaced.append(name)
            elif _holds(not_known) or after[name] != before[name]:
                altered.append(name)
    made = [name for name in {**after, **_mapping(unknown)} if name not in before]
    return Changes(
        objects=tuple(objects),
        made=tuple(made),
        ended=tuple(name for name in before if name not in after),
        replaced=tuple(name for name in replaced if name not in lost),
        lost=tuple(name for name in replaced if name in lost),
        altered=tuple(altered),
        data=tuple(
            one.address for one in objects if one.action in ("delete", "replace") and (one.type in DATA or (one.type in MACHINES and not (before or after)))
        ),
        outputs=tuple(nodes.get("actions") or ("no-op",)) != ("no-op",),
    )


def refusal(changes: Changes, site: str) -> str | None:
    """Why a plan is not applied unless that is allowed; None if it takes nothing away."""
    said = [
        f"{what} {', '.join(names)}" for what, names in (("end", changes.ended), ("replace", changes.replaced), ("remove the data of", changes.data)) if names
    ]
    if not said:
        return None
    return (
        f"This plan would {' and '.join(said)}, and nothing was changed. If that is wanted, drain nodes first whose platform is to stay up, and run:\n"
        f"ansible-playbook -i {site} playbooks/machines.yml -e machines_allow_destroy=true"
    )


def describe(changes: Changes, root: str) -> list[str]:
    """The plan as lines to read: machines first, then each object with what makes it change."""
    if not changes.any:
        return [f"{root}: nothing to change"]
    signs = {"create": "+", "update": "~", "delete": "-", "replace": "-/+"}
    counts = {action: sum(one.action == action for one in changes.objects) for action in signs}
    words = {"create": "to create", "update": "to change", "delete": "to destroy", "replace": "to replace"}
    summary = ", ".join(f"{count} {words[action]}" for action, count in counts.items() if count)
    lines = [f"{root}: {summary or 'only its data about machines changes'}"]
    for what, names in (
        ("created", changes.made),
        ("DESTROYED", changes.ended),
        ("REPLACED", changes.replaced),
        ("gone, recreated", changes.lost),
        ("changed", changes.altered),
    ):
        if names:
            lines.append(f"  machines {what}: {', '.join(names)}")
    for one in changes.objects:
        because = f"  ({', '.join(one.because)})" if one.because else ""
        lines.append(f"    {signs.get(one.action, '?'):>3} {one.address}{because}")
    return lines


def _because(change: Mapping[str, Any], action: str) -> tuple[str, ...]:
    if action == "replace":
        return tuple(dict.fromkeys(str(path[0]) for path in change.get("replace_paths") or () if path))
    if action != "update":
        return ()
    before, after, unknown = (_mapping(change.get(key)) for key in ("before", "after", "after_unknown"))
    return tuple(name for name in sorted({*before, *after, *unknown}) if unknown.get(name) is True or before.get(name) != after.get(name))


def _holds(unknown: Any) -> bool:
    """Whether anything in a plan's map of unknown values is unknown."""
    if isinstance(unknown, Mapping):
        return any(_holds(value) for value in unknown.values())
    return any(_holds(value) for value in unknown) if isinstance(unknown, list) else unknown is True


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


@dataclass
class Applier:
    """The tool in one root. ``site``: the site's folder. ``say`` gets a line of progress."""

    root: Root
    site: Path
    say: Callable[[str], None]
    timeout_seconds: int = 3600
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def __post_init__(self) -> None:
        environment = {
            # Relative, so that what a root remembers of it is the same in every checkout. An undeclared variable is no error in the environment.
            "TF_VAR_site_folder": os.path.relpath(self.site, self.root.folder),
            **self.environment,
        }
        if self.root.workspace:
            environment["TF_WORKSPACE"] = self.root.workspace
        try:
            self.tool = _Tool(find_tool(self.root.binary, environment), self.root.folder, environment, self.timeout_seconds)
        except StateFault as fault:
            raise MachinesError(f"{self.root.shown} {fault}") from None

    @contextmanager
    def plan(self, destroy: bool = False) -> Iterator[tuple[Changes, Path]]:
        """What would change, and the plan's file, which is gone afterwards: it may hold secrets.

        :raises MachinesError: the tool fails.
        """
        self._check_state()
        folder = Path(tempfile.mkdtemp(prefix="ashlar-plan-"))
        try:
            self._run("init", input=False, no_color=True)
            file = folder / "plan"
            options: dict[str, Any] = {"destroy": True} if destroy else {}
            var_files = [str(file) for file in self.root.var_files]
            lock = f"{LOCK_SECONDS}s"
            self._run("plan", input=False, no_color=True, detailed_exitcode=True, lock_timeout=lock, out=str(file), var_file=var_files, **options)
            try:
                plan = json.loads(self._run("show", str(file), json=True, no_color=True))
            except ValueError:
                printed = f"`{self.tool.shown} show -json` of the plan printed no JSON"
                raise MachinesError(f"{self.root.shown}: {printed}. Is it OpenTofu or Terraform >= 1.6?") from None
            yield read_changes(plan), file
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def apply(self, plan: Path) -> None:
        """Exactly this plan.

        :raises MachinesError: it failed. What was made till then is in the state, and the next run goes on from there.
        """
        self._run("apply", str(plan), input=False, no_color=True, lock_timeout=f"{LOCK_SECONDS}s")

    def _check_state(self) -> None:
        """A local state is written in place: of a run that was killed in that moment an empty file is left, which the tool takes for no machines at all."""
        state = local_state(self.root.folder, self.root.workspace, self.environment)
        backup = state.with_name(f"{state.name}.backup")
        if state.is_file() and not state.stat().st_size and backup.is_file() and backup.stat().st_size:
            raise MachinesError(
                f"{self.root.shown}: its state {state} is empty, since a run was killed while it wrote it; all machines would be made a second time. "
                f"Copy {backup.name}, which is from before that run, over it. What the killed run made is not in it: look for that at the provider, "
                "and remove it or `tofu import` it. Nothing was changed."
            )

    def _run(self, command: str, *arguments: str, **options: Any) -> str:
        try:
            return self.tool.follow(command, arguments, options, self.say if command == "apply" else None)
        except StateFault as fault:
            raise MachinesError(f"{self.root.shown} {fault}") from None


class _Tool(Tool):
    """The tool as it is when it changes something: what it does is told as it goes, and it is asked to end before it is ended."""

    def follow(self, command: str, arguments: Sequence[str], options: Mapping[str, Any], say: Callable[[str], None] | None) -> str:
        """Its standard output.

        :raises StateFault: it failed, or took too long.
        """
        line = self._line(command, tuple(arguments), options)
        process = subprocess.Popen(
            line,
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        out: list[str] = []
        errors: list[str] = []
        pumps = [
            threading.Thread(target=_pump, args=(process.stdout, out, say), daemon=True),
            threading.Thread(target=_pump, args=(process.stderr, errors, None), daemon=True),
        ]
        for pump in pumps:
            pump.start()
        try:
            process.wait(self.timeout_seconds)
        except BaseException as error:
            self._end(process)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise StateFault(
                f"was at work with `{self.shown} {command}`, which had not ended after {self.timeout_seconds} s and was stopped. "
                "What it made is remembered: run again, with a larger machines_timeout_seconds if it was only slow."
            ) from None
        finally:
            for pump in pumps:
                pump.join(5)
        if process.returncode not in (0, 2) or (process.returncode == 2 and command != "plan"):
            said = self.last_words("".join(errors or out[-40:]).encode())
            remedy = next((words for pattern, words in _REMEDIES if re.search(pattern, said)), "Correct that and run again; what was made is remembered.")
            end = f"exit code {process.returncode}" if process.returncode > 0 else f"signal {-process.returncode}"
            raise StateFault(f"can't go on: `{self.shown} {command}` ended with {end} and said: {said or 'nothing'} {remedy.format(tool=self.shown)}")
        return "".join(out)

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        # An interrupt lets it finish what it has begun and write it to the state; a second one does not.
        for sign, seconds in ((signal.SIGINT, 120), (signal.SIGKILL, 10)):
            try:
                os.killpg(process.pid, sign)
                process.wait(seconds)
                return
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue


_TOLD = re.compile(r"^(?P<address>\S.*?): (?P<what>Creating|Modifying|Destroying|Creation complete|Modifications complete|Destruction complete|Still )")


def _pump(stream: IO[str] | None, into: list[str], say: Callable[[str], None] | None) -> None:
    last = 0.0
    for line in stream or ():
        into.append(line)
        match = _TOLD.match(line)
        if say and match:
            # Many objects that are still in the making would say so every ten seconds each.
            if match["what"] == "Still ":
                if time.monotonic() - last < 15:
                    continue
                last = time.monotonic()
            say("  " + re.sub(r" \[id=.*\]$", "", line.rstrip()))
