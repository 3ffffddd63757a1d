# SPDX-License-Identifier: Apache-2.0
"""What holds for every role: its options, its manifest and its place in site.yml tell the same."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible.utils.display import Display
from ansible_collections.ashlar.stack.plugins.filter.object_names import object_names
from ansible_collections.ashlar.stack.plugins.module_utils import kubernetes_nodes
from ansible_collections.ashlar.stack.plugins.module_utils.health.log import Failure, Line, recognise
from ansible_collections.ashlar.stack.plugins.module_utils.preflight.checks import FEATURES

ROOT = Path(__file__).parents[3]
LAYERS: list[str] = json.loads((ROOT / "schemas/manifest.json").read_text())["properties"]["layer"]["enum"]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if (path / "meta").is_dir())
MANIFESTS: dict[str, dict[str, Any]] = {
    role: yaml.safe_load((ROOT / "roles" / role / "meta/component.yml").read_text())
    for role in ROLES
    if (ROOT / "roles" / role / "meta/component.yml").is_file()
}
PLAYS: list[dict[str, Any]] = yaml.safe_load((ROOT / "site.yml").read_text())
SLOTS: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "stacks/slots.yml").read_text())
SOURCES = {"nodes", "admin", "any"} | {network for manifest in MANIFESTS.values() for network in manifest.get("networks") or {}}


def options(role: str) -> dict[str, Any]:
    specs = yaml.safe_load((ROOT / "roles" / role / "meta/argument_specs.yml").read_text())["argument_specs"]
    return {name: option for entry in specs.values() for name, option in (entry.get("options") or {}).items()}


def defaults(role: str) -> dict[str, Any]:
    path = ROOT / "roles" / role / "defaults/main.yml"
    return (yaml.safe_load(path.read_text()) or {}) if path.is_file() else {}


def roles_of(play: dict[str, Any]) -> list[str]:
    """Those that a play applies. Their options were checked before, so they do not check them again."""
    imported = [task["ansible.builtin.import_role"] for task in play.get("tasks") or [] if "ansible.builtin.import_role" in task]
    assert all(role["rolespec_validate"] is False for role in imported)
    return [str(role["name"]).removeprefix("ashlar.stack.") for role in imported]


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_those_of_the_argument_specs(role: str) -> None:
    specified = {name: option["default"] for name, option in options(role).items() if "default" in option}
    assert defaults(role) == specified


@pytest.mark.parametrize("role", ROLES)
def test_every_option_is_a_sentence_with_a_type_under_the_roles_name(role: str) -> None:
    for name, option in options(role).items():
        assert name == role or name.startswith(f"{role}_"), f"{name} does not say that it is {role}'s"
        assert not re.search(r"_(max|min)_|_(limit|mb|gb)(_|$)", name), f"{name}: a limit ends with _max or _min, and sizes are in mib, gib or bytes"
        assert option.get("type"), f"{name} has no type"
        text = option.get("description")
        last = text[-1] if isinstance(text, list) else text
        assert last and str(last).rstrip().endswith("."), f"{name} is not described in a sentence"


@pytest.mark.parametrize("role", MANIFESTS)
def test_a_manifest_keeps_to_its_schema(role: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "schemas/manifest.json").read_text())
    errors = [
        f"{'/'.join(map(str, error.path))}: {error.message}"
        for error in jsonschema.Draft202012Validator(schema).iter_errors(MANIFESTS[role])
    ]
    assert errors == []


@pytest.mark.parametrize("role", MANIFESTS)
def test_a_manifest_tells_editors_its_schema(role: str) -> None:
    first = (ROOT / "roles" / role / "meta/component.yml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=../../../schemas/manifest.json"


@pytest.mark.parametrize("role", MANIFESTS)
def test_what_a_manifest_names_exists(role: str) -> None:
    manifest = MANIFESTS[role]
    slots = {
        slot
        for other in MANIFESTS.values()
        for slot in ([other["fills"]] if isinstance(other.get("fills"), str) else other.get("fills") or [])
    }
    for port in manifest.get("ports") or []:
        unknown = set([] if str(port["from"]).startswith("{{") else port["from"]) - SOURCES - set(MANIFESTS)
        assert not unknown, f"port {port['name']} is open to {unknown}, which is no component"
    assert set(manifest.get("requires") or []) <= slots | set(MANIFESTS)
    for check in manifest.get("health", []) + manifest.get("warnings", []):
        component, _, name = str(check.get("certificate", "")).partition("/")
        if component:
            assert name in {certificate["name"] for certificate in MANIFESTS[component]["certificates"]}
    for artifact in manifest.get("artifacts") or []:
        assert (ROOT / "artifacts" / artifact / "artifact.yml").is_file(), f"artifacts/{artifact}/artifact.yml is missing"
    assert set(manifest.get("limits") or {}) <= set(options(role))
    assert set(manifest.get("stepwise") or []) <= set(manifest.get("artifacts") or [])


# A line as the program writes it, by component and the beginning of the cause that it must lead to.
SAID = {
    "etcd": {
        "the data of this member (8e9e05c52164694d)": "etcd-member: member 8e9e05c52164694d of the cluster is this node, node1, whose data is gone",
        "the data of this member belongs": '{"level":"warn","msg":"request sent was ignored by remote peer due to cluster ID mismatch"}',
        "the other members have removed": '{"level":"error","error":"the member has been permanently removed from the cluster"}',
        "the data in /var/lib/etcd/data is damaged": '{"level":"fatal","msg":"failed to read WAL, cannot be repaired","error":"walpb: crc mismatch"}',
        "the database has reached": "etcdserver: mvcc: database space exceeded",
    },
    "consul": {
        "this agent's gossip key differs": "[ERROR] memberlist: Decrypt packet failed: No installed keys could decrypt the message",
        "Consul does not understand its configuration /etc/consul/agent.json": "==> failed to parse /etc/consul/agent.json: decoding failed due to",
        "this server was away": "refusing to rejoin cluster because server has been offline for more than the configured server_rejoin_age_max",
        "another machine": '[WARN]  agent.server.serf.lan: serf: member has conflicting node ID "0a" with member "n2"',
    },
    "containerd": {
        "another containerd uses": 'level=warning msg="waiting for response from boltdb open" plugin=bolt',
        "its configuration is invalid": "containerd: failed to load config /etc/containerd/config.toml: toml: line 3",
    },
    "kubernetes_node": {
        "swap is on": "E1128 run.go:74] command failed err=failed to run Kubelet: running with swap on is not supported, please disable swap",
        "the Node object n9 was deleted": '"Error updating node status, will retry" err="error getting node \\"n9\\": nodes \\"n9\\" not found"',
        "the kubelet registers as n9": 'nodes "n9" is forbidden: node "n9" is not allowed to modify node "n9"',
        "the kubelet cannot use the control groups": "failed to validate kubelet configuration: kubelet is configured to not run on a host using cgroup v1",
        "the bridge cni0": 'failed to set bridge addr: "cni0" already has an IP address different from 10.244.3.1/24',
    },
    "flannel": {
        "the controller manager": 'E1128 main.go:1] Error registering network: failed to acquire lease: node "n1" pod cidr not assigned',
        "no interface": "Could not find valid interface matching 10.0.0.11",
    },
    "prometheus": {"another Prometheus": 'level=ERROR msg="Fatal error" err="opening storage failed: lock DB directory: resource temporarily unavailable"'},
}


@pytest.mark.parametrize("role", [role for role, manifest in MANIFESTS.items() if manifest.get("failures")])
def test_known_failures_are_known_by_what_programs_write(role: str) -> None:
    failures = [Failure.make(values) for values in MANIFESTS[role]["failures"]]
    told = [recognise([Line(0, 3, line)], failures) for line in SAID[role].values()]
    assert [known and known.cause.startswith(cause) for known, cause in zip(told, SAID[role], strict=True)] == [True] * len(failures)
    for known in told:
        assert known is not None
        assert "{" not in known.cause + known.remedy


def filled(role: str) -> set[str]:
    slots = MANIFESTS[role].get("fills") or []
    return {slots} if isinstance(slots, str) else set(slots)


def together(one: str, other: str) -> bool:
    """Whether a site can choose both: no manifest forbids it, and no slot that takes one component alone is for both."""
    forbidden = other in (MANIFESTS[one].get("conflicts") or []) or one in (MANIFESTS[other].get("conflicts") or [])
    return not forbidden and not any(SLOTS[slot]["single"] for slot in filled(one) & filled(other))


def test_ports_are_unique_among_components_of_a_node() -> None:
    wanted = {role: {(port.get("protocol", "tcp"), port["port"]) for port in manifest.get("ports") or []} for role, manifest in MANIFESTS.items()}
    clashes = [(one, other) for one, other in itertools.combinations(wanted, 2) if wanted[one] & wanted[other] and together(one, other)]
    assert clashes == [], "these want the same port and may be chosen together; one of their manifests has to name the other in `conflicts`"


def test_alternatives_that_are_never_chosen_together_may_want_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    edge = {"fills": "load_balancer", "ports": [{"name": "https", "port": 443, "from": ["any"]}]}
    overlay = {"fills": "overlay", "ports": [{"name": "vxlan", "port": 8472, "protocol": "udp", "from": ["nodes"]}]}
    monkeypatch.setitem(MANIFESTS, "one", overlay)
    monkeypatch.setitem(MANIFESTS, "two", overlay)
    assert not together("one", "two"), "an overlay is alone in its slot"
    monkeypatch.setitem(MANIFESTS, "one", edge)
    monkeypatch.setitem(MANIFESTS, "two", edge)
    assert together("one", "two")
    monkeypatch.setitem(MANIFESTS, "two", {**edge, "conflicts": ["one"]})
    assert not together("one", "two") and not together("two", "one")


def test_every_component_has_its_plays_on_its_own_group() -> None:
    plays = Counter(role for play in PLAYS for role in roles_of(play))
    own = {role: (ROOT / "roles" / role / "tasks/main.yml").is_file() for role in MANIFESTS}
    further = {role: [play for play in manifest.get("plays", []) if play.get("at") != "settings"] for role, manifest in MANIFESTS.items()}
    assert plays == {role: own[role] + len(further[role]) for role in MANIFESTS}
    for play in PLAYS:
        for role in roles_of(play):
            if role in MANIFESTS:
                assert play["hosts"] == role, f"the play '{play['name']}' must have hosts: {role}"


def test_the_closing_page_names_no_component() -> None:
    [page] = [task["ansible.builtin.set_stats"]["data"] for play in PLAYS for task in play.get("tasks", ()) if "ansible.builtin.set_stats" in task]
    assert page == {"ashlar_page": "{{ site_page }}"}
    assert MANIFESTS["kubernetes_control"]["page"]["Kubernetes"]


def test_every_play_leads_to_a_role_that_exists() -> None:
    named = {role for play in PLAYS for role in roles_of(play)}
    assert named <= set(ROLES)
    groups = {group.partition("[")[0] for play in PLAYS if "hosts" in play for group in str(play["hosts"]).split(":")} - {"nodes", "localhost", "retiring"}
    assert groups <= set(MANIFESTS)
    for play in PLAYS:
        assert play.get("hosts") != "all", "hosts that are no nodes are in the group all"
        if "hosts" not in play:
            assert (ROOT / play["ansible.builtin.import_playbook"]).is_file()


def test_plays_are_named_by_the_layer_of_their_component() -> None:
    for play in PLAYS:
        for role in roles_of(play):
            if role in MANIFESTS:
                assert play["name"].partition(" | ")[0] == MANIFESTS[role]["layer"]


def tags(name: str) -> set[str]:
    return set(next(play for play in PLAYS if play["name"] == name).get("tags", []))


def tags_of(roles: Iterable[str]) -> set[str]:
    return {tag for role in roles for tag in (role, MANIFESTS[role]["layer"])}


@pytest.mark.parametrize("role", MANIFESTS)
def test_a_play_has_its_layer_and_its_component_as_tags(role: str) -> None:
    play = next(play for play in PLAYS if role in roles_of(play) and tags(play["name"]) <= {*tags_of([role]), "always"})
    always = {"always"} if MANIFESTS[role]["layer"] == "base" else set()
    assert tags(play["name"]) == tags_of([role]) | always


def test_a_play_that_serves_many_components_runs_with_each_of_them() -> None:
    applied = [role for role in MANIFESTS if any((ROOT / "roles" / role / folder).is_dir() for folder in ("objects", "workloads"))]
    assert tags("orchestration | kubernetes_control objects") == tags("orchestration | kubernetes_node nodes") == tags_of([*applied, "kubernetes_node"])
    secret = [role for role in MANIFESTS if any("consul/tokens/" in path.read_text() for path in (ROOT / "roles" / role).glob("templates/**/*.j2"))]
    assert tags("coordination | consul tokens") == tags_of(secret)


def test_a_token_of_consul_is_contributed_by_the_component_that_reads_it() -> None:
    own = yaml.safe_load((ROOT / "roles/consul/vars/main.yml").read_text())["_consul_policies"]
    given = {name: role for role in MANIFESTS for name in MANIFESTS[role].get("contributes", {}).get("consul", {}).get("tokens", {})}
    read = {
        name: role
        for role in MANIFESTS
        if role != "consul"
        for path in (ROOT / "roles" / role).glob("templates/**/*.j2")
        for name in re.findall(r"'consul/tokens/([a-z-]+)'", path.read_text())
    }
    assert given.keys().isdisjoint(own)
    assert {name: role for name, role in read.items() if name not in own} == given


def test_all_else_runs_whatever_the_tags_are_but_for_the_record_of_a_whole_run() -> None:
    untagged = [play["name"] for play in PLAYS if not play.get("tags")]
    assert untagged == ["every layer | record"]
    named = ("every layer | plan", "every layer | lock", "every layer | unlock", "every layer | placement", "every layer | retire", "every layer | ready")
    for name in (*named, "The store holds every artifact of the site", "base | hosts"):
        assert "always" in tags(name)


@pytest.mark.parametrize(
    ("run", "skip", "expected"),
    [
        (["all"], [], ["firewall", "etcd", "consul", "portal"]),
        (["etcd"], [], ["firewall", "etcd"]),
        (["coordination", "portal"], [], ["firewall", "etcd", "consul", "portal"]),
        (["coordination"], ["consul"], ["firewall", "etcd"]),
        (["all"], ["coordination"], ["firewall", "portal"]),
        (["tagged"], ["base"], ["etcd", "consul", "portal"]),
    ],
)
def test_what_did_not_run_need_not_be_healthy(run: list[str], skip: list[str], expected: list[str]) -> None:
    task = next(play for play in PLAYS if play["name"] == "every layer | ready")["tasks"][0]
    layers = {"firewall": "base", "etcd": "coordination", "consul": "coordination", "portal": "management"}
    variables = {name: trust_as_template(value) for name, value in task["vars"].items()}
    variables |= {"component_layers": layers, "site_components": list(layers), "ansible_run_tags": tuple(run), "ansible_skip_tags": tuple(skip)}
    variables["node_health"] = [{"component": name} for name in layers]
    checks = Templar(loader=DataLoader(), variables=variables).template(trust_as_template(task["ashlar.stack.ready"]["checks"]))
    assert [check["component"] for check in checks] == expected


@pytest.mark.parametrize(("left", "recorded"), [(["a", "b"], True), (["a"], False)])
def test_versions_are_recorded_when_every_node_has_them(left: list[str], recorded: bool) -> None:
    """A node that failed, or was left out by --limit, may have those of before."""
    task = next(play for play in PLAYS if play["name"] == "every layer | record")["tasks"][0]
    variables = {"groups": {"nodes": ["a", "b"]}, "ansible_play_hosts": left}
    templar = Templar(loader=DataLoader(), variables=variables)
    assert templar.template(trust_as_template("{{ " + task["when"] + " }}")) is recorded


LOCAL_TASKS = [
    (file, task)
    for file in sorted([*(ROOT / "roles").glob("*/tasks/*.yml"), *(ROOT / "playbooks").glob("*.yml"), ROOT / "site.yml"])
    for task in yaml.safe_load(file.read_text())
    if (task.get("delegate_to") or task.get("hosts")) == "localhost" and "local_nodes" not in str(file)
]


@pytest.mark.parametrize(("file", "task"), LOCAL_TASKS, ids=lambda part: part.name if isinstance(part, Path) else part["name"])
def test_the_controllers_own_tasks_ask_for_no_sudo(file: Path, task: dict[str, Any]) -> None:
    """``ansible_become`` among the variables of all nodes is localhost's, too, and wins over the keyword ``become``."""
    assert task["vars"]["ansible_become"] is False


@pytest.mark.parametrize("kind", ["objects", "workloads"])
def test_what_components_apply_to_the_api_is_found_without_a_warning(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(Display, "warning", lambda self, text, *rest, **named: warnings.append(text))
    block = next(task for task in yaml.safe_load((ROOT / "roles/kubernetes_control/tasks/objects.yml").read_text()) if "block" in task)
    variables = {name: trust_as_template(block["vars"][name].replace("ansible.builtin.", "")) for name in ("_roles", f"_{kind}")}
    variables |= {"site_components": list(MANIFESTS), "role_path": str(ROOT / "roles/kubernetes_control"), "ansible_search_path": [str(ROOT)]}
    found = Templar(loader=DataLoader(), variables=variables).template(trust_as_template("{{ _" + kind + " }}"))
    assert sorted(Path(file).resolve() for file in found) == sorted((ROOT / "roles").glob(f"*/{kind}/*.yml*"))
    assert warnings == []


@pytest.mark.parametrize("role", MANIFESTS)
def test_every_number_has_limits(role: str) -> None:
    limits = MANIFESTS[role].get("limits") or {}
    for name, option in options(role).items():
        if {option.get("type"), option.get("elements")} & {"int", "float"} and "choices" not in option:
            assert {"minimum", "maximum"} <= set(limits.get(name, {})), f"{name} may be any number: give it limits in {role}'s manifest"


def test_roles_of_nodes_are_labels_that_a_site_may_not_set_itself() -> None:
    roles = {kubernetes_nodes.ROLE + role for role in kubernetes_nodes.ROLES.values()}
    assert roles <= set(MANIFESTS["kubernetes_node"]["node_labels"])


def test_every_feature_of_the_kernel_that_a_manifest_may_need_is_looked_for() -> None:
    assert set(json.loads((ROOT / "schemas/manifest.json").read_text())["properties"]["kernel"]["items"]["enum"]) == set(FEATURES)


def test_every_layer_of_a_manifest_is_known() -> None:
    assert {manifest["layer"] for manifest in MANIFESTS.values()} <= set(LAYERS)


def test_kernel_settings_hold_after_a_boot_whatever_the_host_had_before() -> None:
    """Files are read in the order of their names, and the last one counts (sysctl.d(5))."""
    ours = [path.name.removesuffix(".j2") for path in (ROOT / "roles").glob("*/templates/etc/sysctl.d/*")]
    assert min(ours) > max("99-sysctl.conf", "99-hardening.conf", "99-kubernetes-cri.conf")


NAMED_BY_THE_INVENTORY = {
    "alertmanager/templates/etc/systemd/system/alertmanager.service.j2": "--cluster.peer-name={{ inventory_hostname }} ",
    "consul/templates/etc/consul/agent.json.j2": "'node_name': inventory_hostname,",
    "consul_sync/templates/etc/consul-sync/settings.json.j2": "'identity': inventory_hostname,",
    "etcd/templates/etc/etcd/etcd.env.j2": "ETCD_NAME={{ inventory_hostname }}\n",
    "flannel/templates/etc/systemd/system/flannel.service.j2": "Environment=NODE_NAME={{ inventory_hostname }}\n",
    "haproxy_ingress/templates/etc/systemd/system/haproxy-ingress.service.j2": "Environment=POD_NAME={{ inventory_hostname }} ",
    "keepalived/templates/etc/keepalived/keepalived.conf.j2": "router_id {{ inventory_hostname }}\n",
    "kubernetes_node/templates/etc/systemd/system/kubelet.service.j2": "--hostname-override={{ inventory_hostname }} ",
    "kubernetes_node/templates/etc/kubernetes/node/proxy.yml.j2": "hostnameOverride: {{ inventory_hostname }}\n",
    "log_collector/templates/etc/log-collector/settings.json.j2": "'name': inventory_hostname,",
    "prometheus/templates/etc/prometheus/prometheus.yml.j2": "'replica': inventory_hostname}",
}


@pytest.mark.parametrize("file", NAMED_BY_THE_INVENTORY)
def test_what_would_name_itself_after_its_host_has_the_inventorys_name(file: str) -> None:
    """Machines from one image may all have the same hostname; members of a cluster, leases and nodes must not."""
    assert NAMED_BY_THE_INVENTORY[file] in (ROOT / "roles" / file).read_text()


def test_nothing_else_asks_for_the_name_of_its_host() -> None:
    calls = re.compile(r"log-send-hostname|ansible_hostname|ansible_facts.hostname|gethostname\(|os\.Hostname\(|platform\.node\(|uname -n|machine-id")
    specifiers = re.compile(r"(?<!%)%[Hlm]\b")
    units = [(file, specifiers) for file in (ROOT / "roles").glob("*/templates/etc/systemd/system/*")]
    files = [
        (file, calls)
        for pattern in ("roles/*/templates/**/*", "roles/*/tasks/*.yml", "programs/*/**/*.py", "programs/*/**/*.go")
        for file in ROOT.glob(pattern)
        if file.is_file()
    ]
    assert units
    assert files
    assert [str(file.relative_to(ROOT)) for file, names in units + files if names.search(file.read_text())] == []


@pytest.mark.parametrize("remembered", [None, [], "gone"])
def test_objects_that_a_component_left_in_the_api_are_known_by_name_and_nothing_else_is(remembered: Any, tmp_path: Path) -> None:
    block = next(task for task in yaml.safe_load((ROOT / "roles/kubernetes_control/tasks/objects.yml").read_text()) if "block" in task)
    gone = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "old", "namespace": "kube-system"}}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "kept", "labels": {"a": "b"}}, "rules": []}
    names = object_names([role, None])
    assert names == [{"apiVersion": role["apiVersion"], "kind": "ClusterRole", "metadata": {"name": "kept"}}]
    (tmp_path / "state").mkdir()
    if remembered is not None:
        (tmp_path / "state" / "objects.json").write_text(json.dumps([*names, gone] if remembered else []))
    variables = {name: trust_as_template(block["vars"][name].replace("ansible.builtin.", "")) for name in ("_file", "_remembered", "_unwanted")}
    variables |= {"_wanted": names, "site_directory": str(tmp_path)}
    found = Templar(loader=DataLoader(), variables=variables).template(trust_as_template("{{ _unwanted }}"))
    assert found == ([gone] if remembered else [])


def guard(retiring: dict[str, Any], **extra: Any) -> str:
    """What the first play of site.yml says, or nothing."""
    task = PLAYS[0]["tasks"][1]
    variables = {name: trust_as_template(value) for name, value in task["vars"].items()} | {"site_retiring": retiring, **extra}
    templar = Templar(loader=DataLoader(), variables=variables)
    if not templar.template(trust_as_template("{{ _unasked }}")):
        return ""
    return str(templar.template(trust_as_template(task["ansible.builtin.assert"]["fail_msg"])))


# CAs that a program reads again by itself: at each connection, or by a watch on the file.
READ_AGAIN = {
    "ceph_rgw": {"site"},
    "consul_sync": {"consul"},
    "kubernetes_control": {"front_proxy"},
    "metrics_gateway": {"site"},
    "metrics_server": {"front_proxy"},
    "prometheus": {"consul", "kubernetes", "site"},
}


def test_what_trusts_an_authority_notices_a_new_one() -> None:
    """Otherwise a rotation would cut it off: its unit restarts or reloads when the file changes."""
    for role in (ROOT / "roles" / name for name in ROLES):
        texts = [path.read_text(errors="replace") for path in (role / "templates").rglob("*") if path.is_file()]
        trusted = {name for text in texts for name in re.findall(r"/etc/ashlar/pki/ca/([a-z_]+)[.]crt", text)}
        trusted |= {"kubernetes"} if any("ashlar.stack.kubeconfig" in text for text in texts) else set()
        main = role / "tasks/main.yml"
        noticed = set(re.findall(r"/etc/ashlar/pki/ca/([a-z_]+)[.]crt", main.read_text())) if main.exists() else set()
        assert trusted - noticed - READ_AGAIN.get(role.name, set()) == set(), role.name


def test_a_component_with_a_majority_says_what_it_holds_and_restarts_in_turns() -> None:
    quorums = [name for name, manifest in MANIFESTS.items() if "odd" in str([manifest.get("nodes"), manifest.get("groups")])]
    assert {"etcd", "consul", "kubernetes_control"} <= set(quorums)
    for name in quorums:
        assert {"holds", "rolling"} <= set(MANIFESTS[name].get("life", {})), f"{name} needs life.holds and life.rolling"


def test_what_holds_the_platforms_state_leaves_only_when_it_is_named() -> None:
    leaves = {"etcd": {"nodes": ["alpha", "beta"], "holds": "the quorum"}, "flannel": {"nodes": ["alpha"], "holds": ""}}
    said = guard(leaves)
    assert said.startswith("etcd would leave alpha, beta, and it holds the quorum.") and "-e retire=etcd." in said and "flannel" not in said
    assert guard(leaves, retire="consul") and guard(leaves, retire=[])
    assert not guard(leaves, retire="consul, etcd") and not guard(leaves, retire=["etcd"])
    assert not guard({}) and not guard({"flannel": leaves["flannel"]})
