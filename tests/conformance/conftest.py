# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the conformance tests.

ASHLAR_INVENTORY names the site (a folder or a file; default inventories/local). A test module says with `pytest.mark.needs(...)` which
slots or components it is about, and is left out where the site has none. Tests that need something that runs, or a key-value store, whichever it is,
use the adapters `applications` and `key_value`; those of one orchestrator's own API use its own fixtures (`cluster`, `workload`), and either are left out where
the site has nothing that they speak to. A test marked `disruptive` switches off what the platform has to do without, and runs last (`-m "not disruptive"`
leaves them out); one marked `destructive` takes nodes or data away and runs on the sites of Molecule scenarios only: those that its mark `scenario` names.
Tests that measure something are those that use the fixture `tell` (`-m figures -s` shows what).

A test marked `scenario` is run by the Molecule scenarios that it names, where it is cheapest, and not by the others.

ASHLAR_CONFORMANCE=brief is what every change has to pass: without tests marked `long`, under a small load, and without repeating for a figure's sake.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from .support import key_value as key_value_stores
from .support import orchestrator, sample
from .support import plan as plans
from .support.catalogue import Catalogue
from .support.clients import ApiWriter, CatalogueWriter, Clients, Names, Replicas
from .support.cluster import Cluster, Workload, condition, daemon_set, random_name, service
from .support.figures import Tell, brief
from .support.key_value import KeyValueStore
from .support.load import Load
from .support.monitoring import container
from .support.nodes import Node, connect, inactive
from .support.orchestrator import Applications
from .support.power import Power, reachable, switch
from .support.waiting import at_once, until
from .support.writer import Writer

_plan = pytest.StashKey[plans.Plan]()
# Fixture -> the components of which the site must have one.
SPOKEN_TO = {"cluster": {"kubernetes_control"}, "applications": set(orchestrator.ADAPTERS), "key_value": set(key_value_stores.ADAPTERS)}
HERE = os.path.dirname(__file__)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*names): slots or components the site must have")
    config.addinivalue_line("markers", "disruptive: switches off what the platform has to do without; runs last")
    config.addinivalue_line("markers", "figures: measures something and tells it")
    config.addinivalue_line("markers", "long: takes long and rarely finds what others do not; not for every change")
    config.addinivalue_line("markers", "destructive: removes nodes or data of a site; on the sites of its scenarios alone")
    config.addinivalue_line("markers", "scenario(*names): of all Molecule scenarios these alone run it")


def plan_of(config: pytest.Config) -> plans.Plan:
    """The site's plan, read once."""
    if _plan not in config.stash:
        try:
            config.stash[_plan] = plans.read(os.environ.get("ASHLAR_INVENTORY", "inventories/local"))
        except plans.PlanError as error:
            pytest.exit(str(error), returncode=4)
    return config.stash[_plan]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `control_node` runs once for each, the last alone for every change."""
    if "control_node" in metafunc.fixturenames:
        *others, last = plan_of(metafunc.config).on("kubernetes_control") or [""]
        metafunc.parametrize("control_node", [*(pytest.param(name, marks=pytest.mark.long) for name in others), last])


def spared(item: pytest.Item, site: str) -> bool:
    """Whether a test is left out: it takes long, another scenario proves it, or the site is not there to be destroyed."""
    mark = item.get_closest_marker("scenario")
    homes = [f"mol-{name}" for name in mark.args] if mark else []
    if homes and site not in homes and (site.startswith("mol-") or item.get_closest_marker("destructive")):
        return True
    return brief() and item.get_closest_marker("long") is not None


def needs(item: pytest.Item) -> set[str]:
    """Slots and components without which a test is about nothing."""
    return {name for mark in item.iter_markers("needs") for name in mark.args}


def spoken_to(item: pytest.Item, plan: plans.Plan) -> bool:
    """Whether the site has what the test's fixtures speak to."""
    used = [SPOKEN_TO[name] for name in getattr(item, "fixturenames", ()) if name in SPOKEN_TO]
    return all(any(plan.has(name) for name in names) for names in used)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = [item for item in items if str(item.path).startswith(HERE)]
    if not ours:
        return
    for item in ours:
        if "tell" in getattr(item, "fixturenames", ()):
            item.add_marker("figures")
    plan = plan_of(config)
    about = [item for item in ours if all(plan.has(name) for name in needs(item)) and spoken_to(item, plan)]
    unneeded = [item for item in ours if item not in about or spared(item, plan.site)]
    if unneeded:
        config.hook.pytest_deselected(items=unneeded)
    last = [item for item in ours if item.get_closest_marker("disruptive")]
    first = [item for item in items if item not in unneeded and item not in last]
    items[:] = first + [item for item in last if item not in unneeded]


@pytest.fixture
def key(key_value: KeyValueStore) -> Iterator[str]:
    """A key of the test's own in the site's store."""
    name = f"/ashlar-conformance/{random_name('key')}"
    yield name
    # Of a test that failed one may be off.
    member = next((one for one in key_value.members if reachable(one)), key_value.members[0])
    key_value.forget(member, name)


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Prints a figure, and makes it a property of the test in a report (`--junitxml`), where `make bench` finds it."""

    def say(figure: str) -> None:
        print(figure)
        record_property("figure", figure)

    return say


@pytest.fixture(scope="session")
def rounds() -> int:
    """How often that is done which is measured: once shows that it works, a figure needs more."""
    return 1 if brief() else 10


@pytest.fixture(scope="session")
def plan(request: pytest.FixtureRequest) -> plans.Plan:
    return plan_of(request.config)


@pytest.fixture(scope="session")
def nodes(plan: plans.Plan) -> dict[str, Node]:
    """Name -> node, each of which answers."""
    made = {name: connect(machine) for name, machine in plan.machines.items()}
    at_once(lambda node: until(f"{node.name} answers by SSH", lambda: node.run("echo here")), made.values())
    return made


@pytest.fixture(scope="session")
def measured(plan: plans.Plan, nodes: dict[str, Node]) -> Iterator[tuple[Node, str]]:
    """A container that cAdvisor measures, where a site has it: the node, and its name."""
    with container(plan, nodes) as made:
        yield made


@pytest.fixture(scope="session")
def every(nodes: dict[str, Node]) -> list[Node]:
    """All nodes."""
    return list(nodes.values())


@pytest.fixture(scope="session")
def power(plan: plans.Plan, nodes: dict[str, Node]) -> Power:
    return switch(plan)


@pytest.fixture(scope="session")
def cluster(plan: plans.Plan) -> Cluster:
    """The API as the administrator, once all nodes are ready."""
    made = Cluster.of(plan.credentials / "admin.kubeconfig", plan.site, plan.on("kubernetes_control"))
    wanted = set(plan.on("kubernetes_node"))
    until(f"nodes {', '.join(sorted(wanted))} are ready", lambda: made.ready_nodes() >= wanted)
    return made


@pytest.fixture(scope="session")
def key_value(plan: plans.Plan, nodes: dict[str, Node]) -> KeyValueStore:
    """The store that fills the slot."""
    return key_value_stores.store(plan, nodes)


@pytest.fixture(autouse=True)
def whole(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a disruptive test, whatever has become of it: every node is on, and what keeps the site together is well before the next test begins."""
    if not request.node.get_closest_marker("disruptive"):
        yield
        return
    plan, nodes, power = (request.getfixturevalue(name) for name in ("plan", "nodes", "power"))
    cluster: Cluster | None = request.getfixturevalue("cluster") if plan.has("kubernetes_node") else None
    yield
    for node in nodes.values():
        if not reachable(node):
            power.on(node)
    at_once(lambda node: until(f"{node.name} answers by SSH", lambda: reachable(node)), nodes.values())
    at_once(restored, nodes.values())
    if cluster:
        until("all nodes are ready", lambda: cluster.ready_nodes() >= set(plan.on("kubernetes_node")))
        api = plan.on("kubernetes_control")
        at_once(lambda name: until(f"the API server of {name} is ready", lambda: cluster.ask(name, "GET", "/readyz")[1] == "ok"), api)
    if plan.has("consul"):
        catalogue, asking = Catalogue(plan), [nodes[name] for name in plan.on("consul")]
        until("there is a leader that every agent knows", lambda: len(set(at_once(catalogue.leader, asking)) - {""}) == 1)
        until("all servers of the catalogue are well", lambda: catalogue.get(asking[0], "/v1/operator/autopilot/health")["Healthy"])


def restored(node: Node) -> None:
    """Every unit runs, if need be because it is started here. That it had to be is the fault of the test before, or of the unit, and is told."""
    try:
        until(f"every unit of {node.name} runs", lambda: inactive(node) == [])
    except AssertionError:
        down = inactive(node)
        node.run(f"systemctl start --no-block {' '.join(unit.split()[0] for unit in down)}")
        until(f"every unit of {node.name} runs once it is started", lambda: inactive(node) == [])
        pytest.fail(f"{node.name}: {', '.join(down)} did not come back by itself")


@pytest.fixture(scope="session")
def workload(plan: plans.Plan, cluster: Cluster) -> Iterator[Workload]:
    """One web server on every node in a namespace of its own, behind the Services `probe` (NodePort) and `probe-headless`."""
    namespace = random_name("ashlar-conformance")
    image = f"registry.ashlar.internal/busybox:{plan.versions['busybox']}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})
    try:
        until("the namespace has its service account", lambda: cluster.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/default"))
        cluster.create(daemon_set("probe", image, blob_kb=orchestrator.BLOB_KIB), namespace)
        made = cluster.create(service("probe", kind="NodePort"), namespace)
        cluster.create(service("probe-headless", app="probe", headless=True), namespace)
        wanted = set(plan.on("kubernetes_node"))

        def look() -> dict[str, dict[str, Any]]:
            ready = {pod["spec"]["nodeName"]: pod for pod in cluster.pods(namespace, "app=probe") if condition(pod, "Ready") == "True"}
            return ready if set(ready) == wanted else {}

        pods = until(f"a pod is ready on each of {', '.join(sorted(wanted))}", look)
        yield Workload(cluster, namespace, image, pods, made)
    finally:
        cluster.delete(f"/api/v1/namespaces/{namespace}")


@pytest.fixture(scope="session")
def applications(plan: plans.Plan, request: pytest.FixtureRequest) -> Applications:
    """One web server on every node, by the orchestrator that the site has."""
    found: Applications = request.getfixturevalue(next(fixture for name, fixture in orchestrator.ADAPTERS.items() if plan.has(name)))
    return found


@pytest.fixture(scope="session")
def clients(plan: plans.Plan, nodes: dict[str, Node], request: pytest.FixtureRequest) -> Callable[..., Clients]:
    """Gives all that use the site at the same time, of which none uses the nodes in `without`."""
    # Here, as a node may be off by the time they are asked for.
    workload: Workload | None = request.getfixturevalue("workload") if plan.has("kubernetes_control") else None

    def using(without: Sequence[str] = ()) -> Clients:
        left = [name for name in nodes if name not in without]
        edges = [nodes[name].address for name in plan.on("haproxy") if name in left and plan.has("sample")]
        rate, pause = (10, 0.2) if brief() else (200 // max(1, len(edges)), 0.01)
        found = Clients([Load(443, sample.host(plan), rate, address=address, at_once=8) for address in edges], [])
        if workload:
            control = [name for name in plan.on("kubernetes_control") if name in left]
            own = [Cluster.of(plan.credentials / "admin.kubeconfig", plan.site, control) for _ in range(2)]
            name = f"kubernetes.default.svc.{plan.option('kubernetes_control', 'kubernetes_control_cluster_domain')}"
            worker = [name for name in workload.nodes if name in left][-1]
            found.others += [ApiWriter(pause, cluster=own[0]), Replicas(workload, own[1]), Names(workload, worker, name, pause)]
        elif plan.has("key_value"):
            store: KeyValueStore = request.getfixturevalue("key_value")
            members = [node for node in store.members if node.name in left]
            found.others.append(Writer(replace(store, members=members), f"/ashlar-conformance/{random_name('written')}"))
        if plan.has("consul"):
            # This one costs a process a write.
            found.others.append(CatalogueWriter(5 * pause, catalogue=Catalogue(plan), nodes=[nodes[name] for name in plan.on("consul") if name in left]))
        return found

    return using
