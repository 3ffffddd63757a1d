# SPDX-License-Identifier: Apache-2.0
"""Verbs are stopped half-way, by SIGKILL or because a node goes down: the same command goes on, nothing is lost, and a further run changes nothing.

ASHLAR_SEED, which is printed, gives the same moments again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import yaml

from .support.cluster import Cluster, random_name
from .support.figures import Tell
from .support.nodes import Node, inactive
from .support.plan import Plan
from .support.power import Power, reachable
from .support.site import changes, killed, moment, playbook, run, site_file, words
from .support.waiting import until

pytestmark = [pytest.mark.disruptive, pytest.mark.destructive, pytest.mark.needs("kubernetes_control"), pytest.mark.scenario("life")]

KILLS = 20
OLDER = {"crictl": "1.34.0"}
"""What can be changed and changed back as often as one likes; every node is drained for it."""
SECRETS = "/api/v1/namespaces/default/secrets"


@dataclass(frozen=True)
class Verb:
    """The words of a playbook, and within how many seconds from its start it is killed, which is about as long as it takes."""

    seconds: float
    words: list[str]


def rotate(plan: Plan) -> Verb:
    return Verb(240, ["rotate", "-e", "what=all"])


def replace_node(plan: Plan) -> Verb:
    return Verb(100, ["replace_node", "-e", f"node={plan.on('etcd')[-1]}", "-e", "wipe=true"])


def upgrade(plan: Plan) -> Verb:
    """To the older version where the site has the release's, and the other way round."""
    file = site_file(plan)
    content = yaml.safe_load(file.read_text())
    if content.pop("versions", None) is None:
        content["versions"] = OLDER
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return Verb(120, ["upgrade"])


VERBS: tuple[Callable[[Plan], Verb], ...] = (rotate, replace_node, upgrade)


@pytest.fixture(scope="module", autouse=True)
def unchanged(plan: Plan) -> Iterator[None]:
    """The site has its own versions afterwards, and the checkout its own file."""
    file = site_file(plan)
    text = file.read_text()
    yield
    if yaml.safe_load(file.read_text()) != yaml.safe_load(text):
        file.write_text(text)
        run(plan, "upgrade")
    file.write_text(text)


@pytest.fixture
def kept(cluster: Cluster) -> Iterator[None]:
    """What was written, and encrypted, before is there afterwards."""
    name = random_name("kept")
    cluster.log_in_again()
    cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"word": name}}, "default")
    yield
    cluster.log_in_again()
    assert cluster.get(f"{SECRETS}/{name}")["data"]
    cluster.delete(f"{SECRETS}/{name}")


@pytest.mark.parametrize("number", range(KILLS))
def test_a_verb_that_is_killed_goes_on(number: int, kept: None, plan: Plan, tell: Tell) -> None:
    verb = VERBS[number % len(VERBS)](plan)
    after = moment(2, verb.seconds, number)
    tell(f"{verb.words[0]} is killed after {after:.1f} s")
    with killed(plan, after, *verb.words):
        run(plan, *verb.words)
    assert changes(run(plan, "site")) == {"0"}


@pytest.mark.parametrize("own", [True, False], ids=["its own", "another's"])
def test_a_node_goes_down_in_the_middle_of_an_upgrade(
    own: bool, kept: None, plan: Plan, nodes: dict[str, Node], cluster: Cluster, power: Power, tell: Tell
) -> None:
    verb = upgrade(plan)

    def cordoned() -> list[str]:
        return [item["metadata"]["name"] for item in cluster.items("/api/v1/nodes") if item["spec"].get("unschedulable")]

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(playbook, plan, *verb.words)
        [upgraded] = until("a node is out of service", cordoned, 600)
        down = next(node for name, node in nodes.items() if (name == upgraded) == own)
        power.off(down)
        code, said = running.result()
    tell(said[-3000:])
    assert code not in (0, 1) and down.name in words(said)
    assert own or cordoned() == [], "the node that was upgraded is in service again"
    power.on(down)
    until(f"{down.name} answers by SSH", lambda: reachable(down))
    until(f"every unit of {down.name} runs", lambda: inactive(down) == [])
    run(plan, *verb.words)
    assert cordoned() == []
    assert changes(run(plan, "site")) == {"0"}
