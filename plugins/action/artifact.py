# SPDX-License-Identifier: Apache-2.0
"""Finds out what a host lacks and brings it there, by way of the artifact server where there is one.

One module execution when nothing is lacking. Otherwise: the host says what it lacks; whoever comes first brings that to the artifact server
(under a lock on the controller, so that each blob is uploaded once), and the host fetches and installs in a second execution.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ansible.constants as C
from ansible.errors import AnsibleError
from ansible.executor.task_executor import TaskExecutor
from ansible.plugins.action import ActionBase
from ansible.template import Templar
from ansible.utils.display import Display
from ansible_collections.ashlar.stack.plugins.module_utils.artifact.install import for_platform
from ansible_collections.ashlar.stack.plugins.module_utils.certificates import PKI
from ansible_collections.ashlar.stack.plugins.module_utils.host.locks import acquire
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.errors import ArtifactError as StoreError
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.store import Index, default_store
from ansible_collections.ashlar.stack.plugins.plugin_utils.survey import CHANGED, surveyed

MODULE = "ashlar.stack.artifact"
ORGANIZATION = "ashlar:artifacts"
LOCK_SECONDS = 3600
# Files smaller than this travel together, bytes.
TOGETHER = 8 << 20
# Of this run: made by its main process, shared by its forks, removed at its end.
LOCAL_TMP = C.DEFAULT_LOCAL_TMP  # type: ignore[attr-defined]
display = Display()


class DeliveryError(Exception):
    """What is wrong, where, what is allowed and what to do, for the user."""


class IncompleteStore(DeliveryError):
    """What no way of sending can mend."""


@dataclass(frozen=True)
class StoredArtifacts:
    """What the store holds of the wanted artifacts: artifact -> platform (``amd64``, ``amd64-trixie``) -> index."""

    root: Path
    versions: dict[str, str]
    indexes: dict[str, dict[str, Index]]

    def want(self) -> dict[str, Any]:
        return {
            name: {"version": version, "digests": {platform: digest(index) for platform, index in self.indexes[name].items()}}
            for name, version in self.versions.items()
        }

    def choose(self, name: str, architecture: str, codename: str) -> Index:
        """The index for a host; raises DeliveryError when the store has none for it."""
        found = for_platform(self.indexes[name], architecture, codename)
        if found is None:
            raise DeliveryError(
                f"artifact {name} {self.versions[name]} is in the store for {', '.join(sorted(self.indexes[name]))}, not for {architecture} "
                f"({codename or 'unknown distribution'}). Obtain it: make artifacts; the store is {self.root}."
            )
        return found


def digest(index: Index) -> str:
    """Names exactly this list of files; where they were obtained from does not matter."""
    files = sorted((item.path, item.sha256, item.size, item.mode) for item in index.files)
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def read_stored(root: Path, names: Sequence[str], versions: Mapping[str, Any], check: bool = False) -> StoredArtifacts:
    """Reads the index files of `names` in their versions; raises DeliveryError for what is not there, unless that is only looked at (`check`)."""
    indexes: dict[str, dict[str, Index]] = {}
    chosen: dict[str, str] = {}
    for name in dict.fromkeys(names):
        if name not in versions:
            raise DeliveryError(f"artifact {name}: no version is given for it; artifact_versions has {', '.join(sorted(versions)) or 'none'}.")
        chosen[name] = str(versions[name])
        folder = root / "index" / name / chosen[name]
        try:
            indexes[name] = {path.stem: Index.parse(path.read_text(encoding="utf-8"), str(path)) for path in sorted(folder.glob("*.json"))}
        except OSError as error:
            raise DeliveryError(f"{error.filename}: {error.strerror}; the store must be readable by the user who runs Ansible.") from None
        except StoreError as error:
            raise DeliveryError(str(error)) from None
        if not indexes[name] and not check:
            raise DeliveryError(f"artifact {name} {chosen[name]} is not in the store: {folder} has no index file. Obtain it: make artifacts.")
    return StoredArtifacts(root, chosen, indexes)


def blobs_of(indexes: Sequence[Index]) -> dict[str, int]:
    """sha256 -> bytes."""
    return {item.sha256: item.size for index in indexes for item in index.files}


class ActionModule(ActionBase):
    TRANSFERS_FILES = True
    _supports_check_mode = True
    _supports_diff = True
    _arguments: dict[str, Any]
    _root: str

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            return {**result, **self._run(task_vars or {})}
        except DeliveryError as error:
            raise AnsibleError(str(error)) from None
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)

    def _run(self, variables: dict[str, Any]) -> dict[str, Any]:
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "artifacts": {"type": "list", "elements": "str", "required": True},
                "versions": {"type": "dict"},
                "store": {"type": "path"},
                "servers": {"type": "list", "elements": "str"},
                "port": {"type": "int", "default": 9443},
                "idle_seconds": {"type": "int", "default": 300},
                "activate": {"type": "bool", "default": True},
                "keep": {"type": "int", "default": 2},
                "prune": {"type": "bool", "default": False},
                "verify": {"type": "bool", "default": False},
                "root": {"type": "path"},
            }
        )
        # The artifact server has a root of its own.
        self._root = str(arguments["root"] or self._templar.template(variables.get("artifact_root") or "/"))
        self._arguments = arguments
        if not arguments["artifacts"] and not arguments["prune"]:
            return {"changed": False, "artifacts": {}, "packages": {}, "removed": {}, "source": "none", "bytes": 0}
        if arguments["keep"] < 1:
            raise DeliveryError(f"keep is {arguments['keep']}; at least 1 version stays, the one in use.")
        root = Path(arguments["store"] or default_store()).expanduser().absolute()
        versions = arguments["versions"] or self._templar.template(variables.get("artifact_versions")) or {}
        catalogue = read_stored(root, arguments["artifacts"], versions, self._task.check_mode)
        wanted = catalogue.want()
        found = surveyed(variables).get("artifacts")
        if found and self._root == "/" and not arguments["verify"] and intact(wanted, found, arguments["keep"], arguments["prune"]):
            platform = {key: found[key] for key in ("architecture", "codename")}
            return {"changed": False, "artifacts": {}, "packages": {}, "removed": {}, "source": "none", "bytes": 0, **platform}
        common = {"root": self._root, **{name: arguments[name] for name in ("keep", "prune", "verify", "activate")}}
        seen = self._module(self, {**common, "_step": "inspect", "_want": wanted}, variables)
        if seen.get("failed"):
            return seen
        answer = {
            "changed": bool(seen["changed"]),
            "artifacts": {**seen["artifacts"], **seen["lacking"]},
            "packages": {},
            "removed": seen["removed"],
            "source": "none",
            "bytes": 0,
            "architecture": seen["architecture"],
            "codename": seen["codename"],
        }
        answer["diff"] = page(answer["artifacts"])
        if answer["changed"]:
            answer |= CHANGED
        if not seen["lacking"] or self._task.check_mode:
            return answer
        indexes = [catalogue.choose(name, seen["architecture"], seen["codename"]) for name in seen["lacking"]]
        done = self._bring(catalogue, indexes, common, variables)
        if done.get("failed"):
            return done
        removed = {**answer["removed"], **done["removed"]}
        return {**answer, "packages": done["packages"], "removed": removed, "source": done["source"], "bytes": sum(blobs_of(indexes).values())}

    # ------------------------------------------------------------------ the way of the files

    def _bring(self, catalogue: StoredArtifacts, indexes: list[Index], common: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        blobs = blobs_of(indexes)
        host = str(variables["inventory_hostname"])
        raw = [
            {"name": i.name, "version": i.version, "digest": digest(i), "files": [vars(item) for item in sorted(i.files)]} for i in indexes
        ]
        step = {**common, "_step": "install", "_want": catalogue.want(), "_indexes": raw}
        servers = self._servers(variables)
        # Only a host that may serve others keeps the blobs beside what it has installed.
        step["_drop"] = host not in servers
        name, source = "controller", None
        if servers[:1] == [host]:
            with self._turn(host) as known:
                problem = self._upload(self, catalogue, blobs, None, variables)
                known.update(blobs)
        elif servers:
            name, source = self._through_server(catalogue, servers, blobs, variables)
        done = self._module(self, {**step, "_source": source or {}}, variables)
        if done.get("failed") or not done["missing"]:
            return {**done, "source": name}
        if source:
            display.warning(f"{host}: artifacts come from the controller, not from the artifact server {name}: {done['problem']}")
        # What the server could not give, or what was damaged on the way, comes from the controller itself.
        rest = {sha256: blobs[sha256] for sha256 in done["missing"]}
        problem = self._upload(self, catalogue, rest, None, variables)
        done = self._module(self, step, variables)
        if not done.get("failed") and done["missing"]:
            raise DeliveryError(
                f"{len(done['missing'])} files did not arrive on {host} as they are in the store ({done['problem'] or problem}); the first is "
                f"{catalogue.root}/sha256/{done['missing'][0][:2]}/{done['missing'][0]}. Check the store: make artifacts; then run again."
            )
        return {**done, "source": "controller"}

    def _servers(self, variables: dict[str, Any]) -> list[str]:
        """Hosts that may be the artifact server, in order; none where the play's own host is alone anyway."""
        if self._arguments["servers"] is not None:
            return [str(name) for name in self._arguments["servers"]]
        groups = variables.get("groups") or {}
        if len(groups.get("all") or []) < 2:
            return []
        return [str(name) for name in groups.get("control") or []]

    def _through_server(
        self, catalogue: StoredArtifacts, servers: list[str], blobs: dict[str, int], variables: dict[str, Any]
    ) -> tuple[str, dict[str, Any] | None]:
        """Sees to it that a server has `blobs` and runs; (its name, what the module needs to fetch), or ("controller", None)."""
        for server in servers:
            if server == variables["inventory_hostname"]:
                break
            facts = variables["hostvars"].raw_get(server)
            address = self._templar.template(facts.get("node_address") or facts.get("ansible_host") or server)
            source = {
                "address": str(address),
                "port": self._arguments["port"],
                "certificate": f"{PKI}/artifacts/node.crt",
                "key": f"{PKI}/artifacts/node.key",
                "authority": f"{PKI}/ca/site.crt",
            }
            serve = {**source, "organization": ORGANIZATION, "idle_seconds": self._arguments["idle_seconds"]}
            with self._turn(server) as known:
                if known.get("unusable"):
                    continue
                if not (known.get("serving") and set(blobs) <= set(known)):
                    try:
                        other, other_variables = self._at(server, facts)
                        self._upload(other, catalogue, blobs, {**serve, "program": program()}, other_variables)
                    except IncompleteStore:
                        raise
                    except (AnsibleError, DeliveryError) as error:
                        display.warning(f"{server} cannot be the artifact server: {error}")
                        known["unusable"] = 1
                        continue
                    known.update({**blobs, "serving": 1})
            return server, source
        return "controller", None

    def _upload(
        self, there: ActionModule, catalogue: StoredArtifacts, blobs: dict[str, int], serve: dict[str, Any] | None, variables: dict[str, Any]
    ) -> str:
        """Sends what the host behind `there` lacks of `blobs`, and has it serve when asked; returns what went wrong on the way.

        Uploads are verified on the host: by this step when it serves, by the installing one otherwise.
        """
        user = str(there._get_remote_user() or "")
        step = {"root": there._root, "_step": "seed", "_blobs": blobs, "_user": user, "_serve": serve}
        answer = self._module(there, step, variables)
        for attempt in (1, 2):
            if answer.get("failed"):
                raise DeliveryError(str(answer.get("msg", "the module failed")))
            if not answer["missing"]:
                return str(answer["problem"])
            self._put(there, catalogue, answer["missing"], blobs, answer["incoming"])
            if serve is None and attempt == 1:
                return ""
            answer = self._module(there, step, variables)
        if answer.get("failed") or answer["missing"]:
            raise DeliveryError(str(answer.get("msg") or answer["problem"] or "uploaded files did not arrive"))
        return str(answer["problem"])

    def _put(self, there: ActionModule, catalogue: StoredArtifacts, names: Sequence[str], blobs: Mapping[str, int], folder: str) -> None:
        """Each transfer costs a process and a round trip or two, so small files travel together in one archive, which the host unpacks."""
        started = time.monotonic()
        paths = {name: catalogue.root / "sha256" / name[:2] / name for name in names}
        for name, local in paths.items():
            if not local.is_file() or local.stat().st_size != blobs[name]:
                raise IncompleteStore(f"{local} is missing from the store or has another size than its index says. Obtain it again: make artifacts.")
        small = [name for name in sorted(names) if blobs[name] < TOGETHER]
        if len(small) > 1:
            with tempfile.NamedTemporaryFile(dir=LOCAL_TMP, suffix=".tar") as bundle:
                with tarfile.open(fileobj=bundle, mode="w") as archive:
                    for name in small:
                        archive.add(paths[name], arcname=name)
                bundle.flush()
                there._connection.put_file(bundle.name, f"{folder}/bundle.tar")
        else:
            small = []
        for name in sorted(set(names) - set(small), key=lambda name: -blobs[name]):
            there._connection.put_file(str(paths[name]), f"{folder}/{name}")
        self._tell(f"{len(names)} files, {sum(blobs[name] for name in names) >> 20} MiB, sent", started)

    # ------------------------------------------------------------------ helpers

    def _module(self, there: ActionModule, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        started = time.monotonic()
        answer: dict[str, Any] = there._execute_module(module_name=MODULE, module_args={"artifacts": [], **arguments}, task_vars=variables)
        self._tell(f"{arguments['_step']} on {variables['inventory_hostname']}", started)
        return answer

    def _tell(self, what: str, started: float) -> None:
        """Where the time goes, for those who ask with -vv."""
        display.vv(f"artifact: {what}: {time.monotonic() - started:.2f} s", host=self._play_context.remote_addr)

    def _at(self, server: str, variables: dict[str, Any]) -> tuple[ActionModule, dict[str, Any]]:
        """This action on another host: with that host's connection, become and interpreter, as delegate_to would have them."""
        task = self._task.copy()
        task.delegate_to = None
        templar = Templar(loader=self._loader, variables=variables)
        context = self._play_context.set_task_and_variable_override(task=task, variables=variables, templar=templar)
        if not variables.get("ansible_host"):
            context.remote_addr = server
        executor: Any = TaskExecutor(None, task, variables, context, self._loader, self._shared_loader_obj, None, None)  # type: ignore[arg-type]
        kind = templar.template(variables.get("ansible_connection") or task.connection)
        executor._connection = executor._get_connection(variables, templar, kind)
        executor._set_connection_options(variables, templar)
        other = type(self)(
            task=task, connection=executor._connection, play_context=context, loader=self._loader, templar=templar, shared_loader_obj=self._shared_loader_obj
        )
        other._root = str(templar.template(variables.get("artifact_root") or "/"))
        return other, variables

    @contextlib.contextmanager
    def _turn(self, server: str) -> Iterator[dict[str, Any]]:
        """One fork at a time brings files to `server`. Yields what the forks of this run know of it (blobs it has), kept when this ends well."""
        folder = Path(LOCAL_TMP)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"artifacts-{hashlib.sha256(server.encode()).hexdigest()[:16]}.json"
        with open(path.with_suffix(".lock"), "w", encoding="utf-8") as stream:
            if not acquire(stream, LOCK_SECONDS):
                raise DeliveryError(f"files were still being brought to {server} after {LOCK_SECONDS} seconds; is the link that slow?")
            known: dict[str, Any] = {}
            with contextlib.suppress(OSError, ValueError):
                known = json.loads(path.read_text(encoding="utf-8"))
            try:
                yield known
            finally:
                path.write_text(json.dumps(known), encoding="utf-8")


def intact(wanted: Mapping[str, Any], found: Mapping[str, Any], keep: int, prune: bool) -> bool:
    """Whether the survey of a host has found all that is wanted in use, and nothing to remove."""
    for name, entry in wanted.items():
        version, there, kept = found["intact"].get(name, ("", "", 0))
        asked = for_platform(entry["digests"], found["architecture"], found["codename"])
        if (version, there) != (entry["version"], asked) or kept > keep:
            return False
    return not prune or set(found["known"]) <= set(wanted)


def program() -> str:
    return (Path(__file__).parents[1] / "module_utils" / "artifact" / "server.py").read_text(encoding="utf-8")


def page(changes: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The diff: a line an artifact, version before and after."""
    before = "".join(f"{name}: {change['from'] or 'none'}\n" for name, change in sorted(changes.items()))
    after = "".join(f"{name}: {change['to'] or 'none'}\n" for name, change in sorted(changes.items()))
    if before == after:
        after = "".join(f"{name}: {change['to']} ({change['reason']})\n" for name, change in sorted(changes.items()))
    return {"before_header": "artifacts", "after_header": "artifacts", "before": before, "after": after}
