# SPDX-License-Identifier: Apache-2.0
"""The host's half of `ashlar.stack.tree`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tree
short_description: Installs a folder of templates on a host and restarts the units that use it when it changes
version_added: 1.0.0
author: Ashlar developers (@ashlar)
description:
  - Renders a whole folder of templates on the controller and sends it as one bundle. Paths below the folder are paths of the host.
  - Files ending in C(.j2) are rendered with the task's variables as M(ansible.builtin.template) does (C(trim_blocks), the newline at the
    end is kept) and lose that suffix; all others are copied as they are, binary files too.
  - A template that renders to white space only is not installed, which is how a role leaves out an optional file.
  - Files and folders whose name begins with C(_) at the top of the folder are not installed; they are for C(include) and C(import).
  - Changed files are written atomically, after O(validate) accepted them. Files that the tree installed before and no longer has are removed,
    and nothing else is.
  - After the survey of M(ashlar.stack.preflight), a tree that is intact and unchanged is not sent to its host again.
  - A restart is state. What each unit of O(units) was last started with is recorded by digest, and the unit is restarted when that
    differs, so a run that was interrupted anywhere is completed by the next.
  - Members of a component whose manifest has C(life.rolling) are restarted in turns. Before a healthy member is restarted, the check of
    C(life.rolling.spare) must pass, and the next one follows when it is healthy again; if it does not become so, the task fails on the others,
    which keep running as they are. A member that is unhealthy is restarted at once. All of this waits with a limit.
  - Some paths take effect when written. C(/etc/sysusers.d) creates users before owners are set, C(/etc/tmpfiles.d) creates what it
    describes, C(/etc/modules-load.d) loads modules and C(/etc/sysctl.d) sets kernel settings (what a container cannot do is a warning),
    C(/etc/systemd/system) reloads systemd.
options:
  name:
    description:
      - Name of the tree, under which it is recorded in C(/var/lib/ashlar/trees). One name, one task.
    type: str
    required: true
  source:
    description:
      - Folder on the controller; relative to the role, or to the playbook where there is none.
      - By default the role's C(templates); a role without that folder manages O(directories), O(links) and O(units) only.
    type: path
  state:
    description:
      - V(absent) stops and disables the tree's units and removes everything it installed.
    type: str
    choices: [present, absent]
    default: present
  files:
    description:
      - Owner, group and mode of files by glob; the first that matches wins. Without one, a file is V(root:root) and V(0644), or V(0755)
        if its source is executable.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Glob over host paths. C(*) stays within a folder, C(**) crosses folders.
        type: str
        required: true
      owner:
        description: User name or number.
        type: str
        default: root
      group:
        description: Group name or number.
        type: str
        default: root
      mode:
        description: Four octal digits in quotes. A file that others may not read is never shown in a diff.
        type: str
  directories:
    description:
      - Folders to create. Folders that files need are created by themselves, owned by root with mode 0755.
      - A folder that this tree created and no longer needs is removed when it is empty.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: str
        required: true
      owner:
        description: User name or number.
        type: str
        default: root
      group:
        description: Group name or number.
        type: str
        default: root
      mode:
        description: Four octal digits in quotes.
        type: str
        default: "0755"
  links:
    description:
      - Symbolic links to create.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path of the link.
        type: str
        required: true
      target:
        description: What it points to, as it is written into the link.
        type: str
        required: true
  validate:
    description:
      - Programs that must accept files before any file of the tree is replaced. They run when the content of any file differs, on a copy of
        the whole tree that only root can read.
      - In check mode a program that is not installed yet is a warning.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Glob over host paths; the program runs once for each match.
        type: str
        required: true
      command:
        description: Program and arguments. C({}) is replaced by the path of the copy, C({root}) by the folder that holds the copied tree.
        type: list
        elements: str
        required: true
  units:
    description:
      - systemd units that use the tree. They are started without waiting; M(ashlar.stack.ready) waits.
      - A unit that runs already when it is first named here is restarted once, since it is unknown what it was started with.
      - A one-shot service without RemainAfterExit is run once for each change of what it depends on.
      - A unit whose unit file leaves the tree is stopped and disabled first.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Unit name with suffix.
        type: str
        required: true
      state:
        description: V(stopped) and V(absent) wait until it has stopped. V(absent) disables it as well; it may be unknown to systemd.
        type: str
        choices: [started, stopped, masked, absent]
        default: started
      enabled:
        description: Whether it starts at boot. By default V(true) for started units, and left as it is for stopped ones.
        type: bool
      files:
        description:
          - Globs of files of the tree whose change restarts the unit. The unit's own unit file and drop-ins always do.
          - By default all of the tree except other units' files in C(/etc/systemd/system) and paths that take effect when written; for
            units other than services only their own.
        type: list
        elements: str
      watch:
        description:
          - Globs of files outside the tree whose change restarts the unit. A link counts with its target and the target file's content; a
            link to a folder with its target alone; a folder with all files below it.
        type: list
        elements: str
        default: []
      own:
        description: Whether it is stopped and disabled when the tree goes. V(false) for units of the system that the tree only configures.
        type: bool
        default: true
      reload:
        description: Globs of files, of the tree or not, whose change reloads the unit instead of restarting it.
        type: list
        elements: str
        default: []
  root:
    description:
      - Folder to use as C(/). With any other than C(/) only files are installed and nothing of the running host is touched
        (for images and tests); owners are those of the running host.
    type: path
    default: /
  bundle:
    description:
      - The files, packed by the action plugin from O(source). Do not set it.
    type: str
  fingerprint:
    description:
      - A digest of the task, computed by the action plugin for the survey of M(ashlar.stack.preflight). Do not set it.
    type: str
  component:
    description:
      - The role whose tree it is, set by the action plugin for M(ashlar.stack.retire). Do not set it.
    type: str
    default: ""
  hold:
    description:
      - Leaves restarts of running units pending, set by the action plugin for members that take turns. Do not set it.
    type: bool
    default: false
notes:
  - Supports check mode (everything is computed, nothing is touched) and diff.
  - A destination that is a symbolic link is itself replaced. On the way there only links owned by root are followed.
  - Files that are removed from C(/etc/sysctl.d), C(/etc/modules-load.d), C(/etc/sysusers.d) and C(/etc/tmpfiles.d) do not undo what they did.
  - With SELinux, new files get their default labels if C(restorecon) is installed.
"""

EXAMPLES = r"""
- name: Etcd is installed and started
  ashlar.stack.tree:
    name: etcd
    files:
      - {path: /etc/etcd/*, owner: etcd, group: etcd, mode: "0640"}
    directories:
      - {path: /var/lib/etcd, owner: etcd, group: etcd, mode: "0700"}
    units:
      - name: etcd.service
        watch: [/etc/ashlar/pki/etcd/peer.crt, /opt/ashlar/etcd/current]

- name: The balancer takes a new configuration without dropping connections
  ashlar.stack.tree:
    name: api_balancer
    validate:
      - {path: /etc/haproxy/haproxy.cfg, command: [haproxy, -c, -f, "{}"]}
    units:
      - {name: haproxy.service, reload: [/etc/haproxy/haproxy.cfg]}

- name: Nothing is left of etcd's files
  ashlar.stack.tree: {name: etcd, state: absent}
"""

RETURN = r"""
changed_paths:
  description: Files, links and folders that were written or whose attributes were set.
  type: list
  returned: always
  sample: [/etc/etcd/etcd.yml]
removed_paths:
  description: Files, links and folders that were removed.
  type: list
  returned: always
started:
  description: Units that were started.
  type: list
  returned: always
restarted:
  description: Units that ran and were restarted.
  type: list
  returned: always
  sample: [etcd.service]
pending:
  description: Units whose restart was held back, with O(hold).
  type: list
  returned: always
reloaded:
  description: Units that were reloaded.
  type: list
  returned: always
stopped:
  description: Units that were stopped.
  type: list
  returned: always
warnings:
  description: What could not be done and was tolerated, such as kernel settings that a container may not write.
  type: list
  returned: when there are some
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ashlar.stack.plugins.module_utils.host.files import host_files
from ansible_collections.ashlar.stack.plugins.module_utils.host.folders import own_umask
from ansible_collections.ashlar.stack.plugins.module_utils.host.run import HostRunner
from ansible_collections.ashlar.stack.plugins.module_utils.tree.apply import Tree, TreeError
from ansible_collections.ashlar.stack.plugins.module_utils.tree.bundle import BundleError, unpack
from ansible_collections.ashlar.stack.plugins.module_utils.tree.spec import spec_of
from ansible_collections.ashlar.stack.plugins.module_utils.tree.survey import task_record

OWNER = {"owner": {"type": "str", "default": "root"}, "group": {"type": "str", "default": "root"}}
PATH = {"path": {"type": "str", "required": True}}
ARGUMENTS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "source": {"type": "path"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "files": {"type": "list", "elements": "dict", "default": [], "options": {**PATH, **OWNER, "mode": {"type": "str"}}},
    "directories": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {**PATH, **OWNER, "mode": {"type": "str", "default": "0755"}},
    },
    "links": {"type": "list", "elements": "dict", "default": [], "options": {**PATH, "target": {"type": "str", "required": True}}},
    "validate": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {**PATH, "command": {"type": "list", "elements": "str", "required": True}},
    },
    "units": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["started", "stopped", "masked", "absent"], "default": "started"},
            "enabled": {"type": "bool"},
            "files": {"type": "list", "elements": "str"},
            "watch": {"type": "list", "elements": "str", "default": []},
            "reload": {"type": "list", "elements": "str", "default": []},
            "own": {"type": "bool", "default": True},
        },
    },
    "root": {"type": "path", "default": "/"},
    "bundle": {"type": "str", "no_log": True},
    "fingerprint": {"type": "str"},
    "component": {"type": "str", "default": ""},
    "hold": {"type": "bool", "default": False},
}


def main() -> None:
    """Run as an Ansible module."""
    own_umask()
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    arguments = module.params
    try:
        spec = spec_of(arguments)
        if not spec.absent and arguments["bundle"] is None:
            raise TreeError(f"tree {spec.name}: no bundle arrived; the module runs through its action plugin (ashlar.stack.tree as a task)")
        sources = unpack(arguments["bundle"]) if arguments["bundle"] else []
        with host_files(arguments["root"]) as files:
            live = arguments["root"] == "/"
            asked = task_record(arguments, sources)
            result = Tree(spec, sources, files, HostRunner(), live=live, asked=asked, component=arguments["component"]).lay(module.check_mode)
    except (TreeError, BundleError) as error:
        module.fail_json(msg=str(error))
    for warning in result.warnings:
        module.warn(warning)
    values = {key: value for key, value in result.__dict__.items() if key not in ("warnings", "diff")}
    if module._diff:
        values["diff"] = result.diff
    module.exit_json(**values)


if __name__ == "__main__":
    main()
