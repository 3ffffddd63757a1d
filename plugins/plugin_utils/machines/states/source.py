# SPDX-License-Identifier: Apache-2.0
"""Sources of states as the configuration has them, and how each is read."""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.contract import REQUIRED
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.states.model import Pending, State, StateFault
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.states.text import check_size, parse_outputs, parse_shown, parse_state
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.states.tool import Tool, find_tool
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import listed, quoted

OUTPUT = "nodes"
_SECRET_KEYS = {
    "s3": ("access_key", "secret_key", "token", "sse_customer_key"),
    "http": ("password", "client_private_key_pem"),
    "gcs": ("credentials", "access_token", "encryption_key"),
    "local": (),
}
_INSTEAD = {
    "s3": "the environment (AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY ...)",
    "http": "the environment (TF_HTTP_PASSWORD)",
    "gcs": "the environment (GOOGLE_APPLICATION_CREDENTIALS, GOOGLE_BACKEND_CREDENTIALS)",
    "local": "the environment",
}
_PATHS = {"local": ("path", "workspace_dir"), "s3": ("shared_config_files", "shared_credentials_files"), "gcs": (), "http": ()}
_REQUIRED = {"local": ("path",), "s3": ("bucket", "key"), "http": ("address",), "gcs": ("bucket",)}


@dataclass(frozen=True, slots=True)
class Limits:
    """Of each run of the tool, and of each state."""

    timeout_seconds: int = 60
    state_bytes: int = 256 * 1048576


@dataclass(frozen=True, slots=True)
class Source:
    """One source. ``kind`` is root, state or backend; ``path`` the root's folder or the state's file. ``output`` is None if it isn't said.

    ``adopt``: the resources count, whatever outputs there are.
    """

    kind: str
    path: Path = Path()
    workspace: str | None = None
    binary: str | None = None
    output: str | None = None
    adopt: bool = False
    prefix: str = ""
    backend: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    config_files: tuple[Path, ...] = ()

    @property
    def shown(self) -> str:
        """How an error calls it, with the output that is read."""
        place = os.path.relpath(self.path) if self.kind != "backend" else f"backend {self.backend}"
        if place.startswith("../../.."):
            place = str(self.path)
        return f"{place}{f' (workspace {self.workspace})' if self.workspace else ''}"


def check_backend(type_: str, config: Mapping[str, Any], has_files: bool) -> list[tuple[str, str]]:
    """(key, what is wrong with it) for the settings of a backend."""
    wrong: list[tuple[str, str]] = []
    for key, value in config.items():
        secret = _secret_inside(value) or (key in _SECRET_KEYS[type_] and value is not None)
        if secret:
            wrong.append((key, f"holds a secret, which would lie open in the inventory. Give it by {_INSTEAD[type_]}, or in a file under config_files."))
        elif not isinstance(value, (str, bool, int, float, list, dict)):
            wrong.append((key, "is empty. Allowed: the setting as in the backend's documentation, or nothing at all."))
    wrong += [(key, "is missing: where the state is. Add it.") for key in _REQUIRED[type_] if key not in config and not has_files]
    return wrong


def read_source(source: Source, environment: Mapping[str, str], limits: Limits) -> State | Pending:
    """The state, or that nothing was applied yet.

    :raises StateFault: it can't be had.
    """
    if source.kind == "state":
        return _read_file(source.path, limits)
    return _read_root(source, environment, limits) if source.kind == "root" else _read_backend(source, environment, limits)


def declares_output(root: Path, name: str) -> bool:
    """Whether the root's files declare the output; so far as can be said without the tool."""
    block = re.compile(rf'^\s*output\s+"{re.escape(name)}"', re.MULTILINE)
    for file in sorted(root.iterdir()):
        if file.name.endswith((".tf", ".tofu")) and block.search(_text(file)):
            return True
        if file.name.endswith((".tf.json", ".tofu.json")):
            try:
                content = json.loads(_text(file))
            except ValueError:
                continue
            outputs = content.get("output", {}) if isinstance(content, dict) else {}
            if any(name in part for part in (outputs if isinstance(outputs, list) else [outputs])):
                return True
    return False


def _read_file(file: Path, limits: Limits) -> State | Pending:
    try:
        if file.is_dir():
            raise StateFault("is a folder. Give the file of the state, or say `root` instead of `state`.")
        if not file.exists():
            if not file.parent.is_dir():
                raise StateFault(f"is not there, nor is its folder {file.parent}. Correct the path.")
            return Pending("is not there yet")
        if not file.is_file():
            raise StateFault("is no regular file. Give the file of the state.")
        _check_lock(file)
        check_size(file.stat().st_size, limits.state_bytes)
        data = file.read_bytes()
    except OSError as error:
        raise StateFault(f"can't be read: {error.strerror}. Let the user who runs Ansible read it.") from None
    return _unless_nothing(parse_state(data, limits.state_bytes))


def _read_root(source: Source, environment: Mapping[str, str], limits: Limits) -> State | Pending:
    root = source.path
    if not root.is_dir():
        raise StateFault("is no folder. Correct the path." if not root.exists() else "is a file. Give the root's folder, or say `state` instead of `root`.")
    try:
        if not any(file.name.endswith((".tf", ".tf.json", ".tofu", ".tofu.json")) for file in root.iterdir()):
            raise StateFault("holds no files of Terraform (*.tf), so it is no root. Correct the path.")
    except OSError as error:
        raise StateFault(f"can't be read: {error.strerror}. Let the user who runs Ansible read it.") from None
    _check_lock(local_state(root, source.workspace, environment))
    tool = Tool(find_tool(source.binary, environment), root, environment, limits.timeout_seconds)
    if source.workspace:
        _check_workspace(tool, source.workspace)
    outputs = parse_outputs(tool.run("output", json=True, no_color=True, workspace=source.workspace), limits.state_bytes)
    name = source.output or OUTPUT
    if name in outputs and not source.adopt:
        return State(outputs, tuple)
    # Only now, since thousands of resources are much to print, and it needs the providers.
    resources = parse_shown(tool.run("show", json=True, no_color=True, workspace=source.workspace), limits.state_bytes)
    if not resources and not outputs:
        return Pending("has nothing applied yet")
    if not source.adopt and declares_output(root, name):
        return Pending(f'has no value for its output "{name}" yet: its last apply did not come to an end')
    return _unless_nothing(State(outputs, lambda: resources))


def _read_backend(source: Source, environment: Mapping[str, str], limits: Limits) -> State | Pending:
    binary = find_tool(source.binary, environment)
    with tempfile.TemporaryDirectory(prefix="ashlar-backend-") as temporary:
        folder = Path(temporary)
        (folder / "main.tf").write_text(f'terraform {{\n  backend "{source.backend}" {{}}\n}}\n', encoding="utf-8")
        settings = folder / "settings.tfbackend"
        settings.write_text("".join(f"{key} = {_hcl(value)}\n" for key, value in source.config.items()), encoding="utf-8")
        for file in source.config_files:
            if not file.is_file():
                raise StateFault(f"names {file} under config_files, which is no file. Correct the path.")
        inside = {**environment, "TF_DATA_DIR": str(folder / ".terraform"), "TF_WORKSPACE": "default"}
        tool = Tool(binary, folder, inside, limits.timeout_seconds, secrets=_secrets_of(source))
        # As files and not as values: the arguments of a program are seen by every user of the machine.
        (folder / "plugins").mkdir()
        try:
            # The folder without plugins keeps it from fetching the providers that the state was made with, which reading doesn't need. It
            # fails over that, but not before the backend is set up.
            tool.run(
                "init",
                backend_config=[str(settings), *(str(file) for file in source.config_files)],
                plugin_dir=str(folder / "plugins"),
                input=False,
                no_color=True,
            )
        except StateFault:
            if not (folder / ".terraform" / "terraform.tfstate").exists():
                raise
        if source.workspace:
            _check_workspace(tool, source.workspace)
        data = tool.run("state pull", workspace=source.workspace)
        return _unless_nothing(parse_state(data, limits.state_bytes)) if data.strip() else Pending("has no state yet")


def _unless_nothing(state: State) -> State | Pending:
    """``Pending`` for a state that nothing was applied to, or everything was destroyed in."""
    return state if state.outputs or any(one.managed for one in state.resources()) else Pending("has nothing applied yet")


def _check_workspace(tool: Tool, workspace: str) -> None:
    """:raises StateFault: there is no such workspace. To be called before anything is asked of it, since backends make it upon that."""
    printed = tool.run("workspace list", no_color=True, workspace="default").decode("utf-8", "replace")
    # Below the list, whose lines are indented, it may say in a sentence where the choice came from.
    names = [line[2:].strip() for line in printed.splitlines() if line.startswith(("* ", "  ")) and line.strip()]
    if workspace not in names:
        raise StateFault(
            f"has no workspace {workspace}. There are: {listed(names)}. Correct workspace, or make it: `{tool.shown} workspace new {workspace}` in the root."
        )


def _check_lock(state: Path) -> None:
    """A run that holds a state file: what is read while it writes may be half of it."""
    file = state.parent / f".{state.name}.lock.info"
    try:
        lock = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        lock = {}
    if not _is_locked(state):
        return
    lock = lock if isinstance(lock, dict) else {}
    by, since = (f" {word} {lock[key]}" if isinstance(lock.get(key), str) else "" for word, key in (("by", "Who"), ("since", "Created")))
    raise StateFault(f"is locked{by}{since}: a run is under way, which may have written a half of it. Wait until it has ended, or end it.")


def _is_locked(state: Path) -> bool:
    """Whether somebody has the state file locked. What lies beside it only tells who, and a run that was killed leaves it there:
    the tool itself takes no notice of it then, and has no way to remove it (`force-unlock`: "LocalState not locked")."""
    try:
        with state.open("rb") as content:
            fcntl.lockf(content, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def local_state(root: Path, workspace: str | None, environment: Mapping[str, str]) -> Path:
    """The file of a root's state, where the root has no other backend; of the workspace that is chosen where none is named."""
    name = workspace or environment.get("TF_WORKSPACE") or _selected_workspace(root)
    return root / "terraform.tfstate" if name == "default" else root / "terraform.tfstate.d" / name / "terraform.tfstate"


def _selected_workspace(root: Path) -> str:
    try:
        return (root / ".terraform" / "environment").read_text(encoding="utf-8").strip() or "default"
    except (OSError, UnicodeDecodeError):
        return "default"


def _hcl(value: Any) -> str:
    # HCL reads JSON's values as its own, but for templates in texts.
    return json.dumps(value).replace("${", "$${").replace("%{", "%%{")


def _secret_inside(value: Any) -> bool:
    return isinstance(value, str) and re.search(r"://[^/@\s:]+:[^/@\s]+@", value) is not None


def _secrets_of(source: Source) -> tuple[str, ...]:
    """Values in the files of settings that must not appear in an error."""
    found: list[str] = []
    for file in source.config_files:
        found += re.findall(r'(?m)^\s*[\w.-]+\s*=\s*"([^"]+)"', _text(file))
    return tuple(found)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def resolved(type_: str, config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Settings whose relative paths start in ``folder``, since the tool runs in another one."""

    def path(value: Any) -> Any:
        if isinstance(value, list):
            return [path(one) for one in value]
        return str(folder / os.path.expandvars(os.path.expanduser(value))) if isinstance(value, str) else value

    return {key: path(value) if key in _PATHS[type_] else value for key, value in config.items()}


def nodes_of(state: State, source: Source) -> Mapping[str, Any] | Pending | None:
    """The value of the output; None where there is none, or none that counts, and resources are adopted.

    :raises StateFault: it is no map of machines, or the one that the configuration names isn't there.
    """
    if source.adopt:
        return None
    name = source.output or OUTPUT
    output = state.outputs.get(name)
    if output is None:
        if source.output:
            raise StateFault(f'has no output "{name}"; it has {listed(sorted(state.outputs))}. Correct output, or add it to the root.')
        return None
    value = output.value
    if not isinstance(value, dict) or (value and not any(isinstance(one, dict) and not set(REQUIRED).isdisjoint(one) for one in value.values())):
        shown = "sensitive and of another form" if output.sensitive else quoted(value)
        instead = "" if source.output else " If it is there for something else, set `adopt: true` to have the resources read instead."
        raise StateFault(f'has an output "{name}" that is {shown}. Allowed: a map of node name to machine, as schemas/machines.json says.{instead}')
    return value or Pending(f'has no machine in its output "{name}"')
