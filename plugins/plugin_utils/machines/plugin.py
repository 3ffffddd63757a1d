# SPDX-License-Identifier: Apache-2.0
"""What the inventory plugins of machines have in common: which files are theirs, machines that are still to come, constructed groups."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from ansible.errors import AnsibleError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.display import Display
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Problem, SiteError


class MachinesInventory(BaseInventoryPlugin, Constructable, Cacheable):
    """An inventory plugin that yields machines. ``MARK`` is the option that tells a file of it that lacks its ``plugin:`` line."""

    SUFFIXES: ClassVar[tuple[str, ...]]
    OTHERS: ClassVar[tuple[str, ...]]
    MARK: ClassVar[str]
    inventory: Any  # Ansible declares them optional, for the time before parse() is called
    loader: Any

    def verify_file(self, path: str) -> bool:
        """Whether ``path`` is a file for this plugin."""
        if not path.endswith(self.SUFFIXES) or not os.access(path, os.R_OK) or not os.path.isfile(path):
            return False
        with open(path, encoding="utf-8", errors="replace") as file:
            keys = dict(re.findall(r"^([\w-]+)\s*:\s*[\"']?([\w.-]*)", file.read(), re.MULTILINE))
        # One that is empty, misspells the plugin's name or has no `plugin:` line is claimed too: no other plugin would say what is wrong with it.
        return keys["plugin"].startswith("ashlar.") and keys["plugin"] not in self.OTHERS if "plugin" in keys else not keys or self.MARK in keys

    def pending(self, note: str) -> None:
        """There are no machines yet, which the stack plugin and every playbook hear of."""
        self.inventory.groups["all"].set_variable("site_machines", "pending")
        Display().display(f"No machines yet: {note}", stderr=True)

    def construct(self, path: str, own: Mapping[str, Mapping[str, Any]]) -> None:
        """``compose``, ``groups`` and ``keyed_groups``. ``own``: host name -> what expressions see besides the host's variables.

        :raises SiteError: an expression is wrong, and ``strict`` is set.
        """
        compose, groups, keyed = (self.get_option(option) for option in ("compose", "groups", "keyed_groups"))
        if not (compose or groups or keyed):
            return
        strict = self.get_option("strict")
        try:
            for name, extra in own.items():
                variables = {**self.inventory.hosts[name].vars, **extra, "inventory_hostname": name}
                self._set_composite_vars(compose, variables, name, strict)
                if compose:
                    variables = {**variables, **self.inventory.hosts[name].vars}
                self._add_host_to_composed_groups(groups, variables, name, strict, fetch_hostvars=False)
                self._add_host_to_keyed_groups(keyed, variables, name, strict, fetch_hostvars=False)
        except AnsibleError as error:
            text = f"{error.message.rstrip('.')}. Correct compose, groups or keyed_groups, or set strict: false."
            raise SiteError([Problem(path, (), text)]) from error
