# SPDX-License-Identifier: Apache-2.0
"""Checks what a site watches before any host is touched. Documented by plugins/modules/observability.py."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.template import trust_as_template
from ansible.utils.display import Display
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.errors import ArtifactError
from ansible_collections.ashlar.stack.plugins.plugin_utils.controller import ControllerAction
from ansible_collections.ashlar.stack.plugins.plugin_utils.observability import alertmanager, dashboards, rules
from ansible_collections.ashlar.stack.plugins.plugin_utils.observability.errors import ObservabilityError, stop
from ansible_collections.ashlar.stack.plugins.plugin_utils.observability.programs import ProgramError, program, run
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Problem
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.options import wrong_value

display = Display()
ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS: dict[str, dict[str, Any]] = {"component": {"type": "str", "choices": ["prometheus", "alertmanager", "grafana"], "required": True}}


class ActionModule(ControllerAction):
    """Options, rules, receivers and the configuration as it will be are right, or the run ends here."""

    ERRORS = (ObservabilityError, ProgramError, ArtifactError, OSError)

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        _, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        component = arguments["component"]
        problems = self._options(component, variables)
        if component == "prometheus":
            problems += self._prometheus(variables, bool(problems))
        elif component == "grafana":
            problems += self._grafana(variables)
        else:
            problems += self._alertmanager(variables, bool(problems))
        stop(problems, os.getcwd())
        return {"changed": False, "checked": component}

    def _value(self, variables: dict[str, Any], name: str) -> Any:
        return self._templar.template(variables.get(name))

    def _options(self, component: str, variables: dict[str, Any]) -> list[Problem]:
        """The site file's options were checked when the site was planned; those of group_vars and -e were not."""
        folder = ROOT / "roles" / component / "meta"
        specs = yaml.safe_load((folder / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]["main"]["options"]
        limits = yaml.safe_load((folder / "component.yml").read_text(encoding="utf-8")).get("limits", {})
        found = {name: wrong_value(spec, limits.get(name, {}), self._value(variables, name)) for name, spec in specs.items() if name in variables}
        return [Problem("", (name,), text) for name, text in found.items() if text]

    def _prometheus(self, variables: dict[str, Any], wrong: bool) -> list[Problem]:
        promtool = self._program("prometheus", "promtool", variables)
        site = Path(str(self._value(variables, "site_directory")))
        files, problems = rules.read(rules.find(ROOT, self._value(variables, "site_components") or [], site))
        disabled = [str(name) for name in self._value(variables, "prometheus_alerts_disabled") or []]
        problems += rules.check(files, disabled, _checker(promtool) if promtool else None)
        addresses = rules.check_remote_write(self._value(variables, "prometheus_remote_write"))
        if promtool and not addresses and not wrong:
            problems += self._check("prometheus", "/etc/prometheus/prometheus.yml", [promtool, "check", "config", "--syntax-only"], variables)
        return problems + addresses

    def _alertmanager(self, variables: dict[str, Any], wrong: bool) -> list[Problem]:
        names = ("alertmanager_receivers", "alertmanager_routes", "alertmanager_default_receiver", "alertmanager_global")
        receivers, routes, default, shared = (self._value(variables, name) for name in names)
        problems = alertmanager.check(receivers, routes, str(default), shared if isinstance(shared, dict) else {})
        amtool = self._program("alertmanager", "amtool", variables)
        if amtool and not problems and not wrong:
            secret = alertmanager.secrets(receivers, shared)
            problems += self._check("alertmanager", "/etc/alertmanager/alertmanager.yml", [amtool, "check-config"], variables, secret)
        return problems

    def _grafana(self, variables: dict[str, Any]) -> list[Problem]:
        components = [str(name) for name in self._value(variables, "site_components") or []]
        places = dashboards.find(ROOT, Path(str(self._value(variables, "site_directory"))))
        pages, problems = dashboards.read(ROOT, places, components)
        more, wrong = dashboards.read_sources(self._value(variables, "grafana_data_sources"))
        promtool = self._program("prometheus", "promtool", variables)
        with tempfile.TemporaryDirectory(prefix="ashlar-") as folder:
            scratch = Path(folder)
            problems += dashboards.check(pages, dashboards.built_in_sources(components) | more, _checker(promtool) if promtool else None, scratch)
        return problems + wrong

    def _program(self, artifact: str, name: str, variables: dict[str, Any]) -> Path | None:
        version = str((self._value(variables, "artifact_versions") or {}).get(artifact, ""))
        found = program(artifact, version, name)
        if found is None:
            display.warning(f"{name} of {artifact} {version} is not in the store for this machine's architecture; hosts check what is checked with it.")
        return found

    def _check(self, component: str, path: str, command: Sequence[Path | str], variables: dict[str, Any], secret: Sequence[str] = ()) -> list[Problem]:
        """What a program says about the configuration as the first host of the component will have it."""
        text = self._render(component, path, variables)
        with tempfile.TemporaryDirectory(prefix="ashlar-") as folder:
            file = Path(folder) / Path(path).name
            file.touch(0o600)
            file.write_text(text, encoding="utf-8")
            status, said = run([*command, file])
            said = said.replace(str(file), path)
        if status == 0:
            return []
        said = alertmanager.masked(said, secret)
        lines = [line.partition("FAILED: ")[2] or line for line in said.splitlines() if line.strip() and not line.startswith("SUCCESS")]
        reason = " / ".join(line.strip() for line in lines if not re.match(r"(Checking .*|.*: error: failed to validate .*)$", line))
        reason = re.sub(r"yaml: unmarshal errors: / line \d+: ", "", reason)
        tool = Path(str(command[0])).name.partition("-")[0]
        return [Problem("", (), f"{tool} does not take the configuration of {component}: {reason.rstrip('.')}. Correct its options.")]

    def _render(self, component: str, path: str, variables: dict[str, Any]) -> str:
        folder = ROOT / "roles" / component / "templates"
        template = (folder / f"{path.lstrip('/')}.j2").read_text(encoding="utf-8")
        templar = self._templar.copy_with_new_env(searchpath=[str(folder)], available_variables=variables)
        try:
            return str(templar.template(trust_as_template(template), escape_backslashes=False, overrides={"trim_blocks": True}))
        except AnsibleError as error:
            raise ObservabilityError(f"{path} of {component} cannot be rendered: {error.message}") from error


def _checker(promtool: Path) -> Callable[[Sequence[Path]], str]:
    def check(files: Sequence[Path]) -> str:
        status, said = run([promtool, "check", "rules", "--lint=none", *files])
        return said if status else ""

    return check
