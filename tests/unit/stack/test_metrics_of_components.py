# SPDX-License-Identifier: Apache-2.0
"""What the collection's own manifests say is measured, and the gateway that shows it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLES = Path(__file__).resolve().parents[3] / "roles"
MANIFESTS: dict[str, dict[str, Any]] = {file.parents[1].name: yaml.safe_load(file.read_text()) for file in sorted(ROLES.glob("*/meta/component.yml"))}
MEASURED = [(name, entry) for name, manifest in MANIFESTS.items() for entry in manifest.get("metrics", ())]


@pytest.mark.parametrize(("component", "entry"), MEASURED, ids=[f"{component}/{entry['name']}" for component, entry in MEASURED])
def test_an_endpoint_can_be_asked_with_what_its_nodes_have(component: str, entry: dict[str, Any]) -> None:
    manifest = MANIFESTS[component]
    if "authority" in entry:
        assert entry["authority"] in manifest["authorities"], "no node of the component need trust it otherwise"
    if "certificate" in entry:
        owner, _, name = entry["certificate"].partition("/")
        found = next(spec for spec in MANIFESTS[owner]["certificates"] if spec["name"] == name)
        assert "client" in found["usages"]
        assert owner == component or owner in manifest["requires"], f"{component} need not be where {owner} is"
    if "drop" in entry:
        assert not re.fullmatch(entry["drop"], "up") and "(?" not in entry["drop"], "Prometheus knows no lookaheads"


def render(metrics: list[dict[str, Any]]) -> str:
    template = (ROLES / "metrics_gateway/templates/etc/metrics-gateway/haproxy.cfg.j2").read_text()
    variables = {
        **yaml.safe_load((ROLES / "metrics_gateway/defaults/main.yml").read_text()),
        "inventory_hostname": "node1",
        "node_address": "192.0.2.1",
        "node_metrics": metrics,
    }
    templar = Templar(loader=DataLoader(), variables=variables)
    return str(templar.template(trust_as_template(template), escape_backslashes=False, overrides={"trim_blocks": True}))


def test_a_path_leads_to_its_endpoint_with_what_it_asks_for() -> None:
    metrics = [
        {"component": "consul", "name": "agent", "url": "https://127.0.0.1:8501/v1/metrics?format=prometheus", "authority": "consul",
         "certificate": "consul/client", "headers": {"X-Consul-Token": "s3cret"}},
        {"component": "kubernetes_node", "name": "kubelet", "url": "https://192.0.2.1:10250/metrics", "authority": "kubelet"},
        {"component": "etcd", "name": "server", "url": "http://127.0.0.1:2381/metrics"},
    ]
    text = render(metrics)
    assert "use_backend consul.agent if { path /consul/agent }" in text
    backends = {part.split("\n")[0]: part for part in text.split("\nbackend ")[1:]}
    assert '  http-request set-pathq "/v1/metrics?format=prometheus"\n' in backends["consul.agent"]
    assert '  http-request set-header X-Consul-Token "s3cret"\n' in backends["consul.agent"]
    own = 'verifyhost localhost sni str(localhost) crt /etc/ashlar/pki/consul/client.crt'
    assert f"server endpoint 127.0.0.1:8501 ssl verify required ca-file /etc/ashlar/pki/ca/consul.crt {own}" in backends["consul.agent"]
    assert "verifyhost node1 sni str(node1)" in backends["kubernetes_node.kubelet"], "at its address it is known by the node's name"
    assert "server endpoint 127.0.0.1:2381\n" in backends["etcd.server"]


def test_a_secret_is_sent_as_it_is_whatever_haproxy_would_read_in_it() -> None:
    text = render([{"component": "a", "name": "b", "url": "http://127.0.0.1:1/%41?x=$HOME", "headers": {"X-T": 'q"w\\e$HOME %[src] #'}}])
    assert '  http-request set-header X-T "q\\"w\\\\e\\$HOME %%[src] #"\n' in text
    assert '  http-request set-pathq "/%%41?x=\\$HOME"\n' in text


def test_who_stands_by_is_empty_and_who_is_down_is_missing() -> None:
    endpoint = {"component": "a", "url": "http://127.0.0.1:1/metrics"}
    text = render([{**endpoint, "name": "one", "active_only": True}, {**endpoint, "name": "all"}])
    backends = {part.split("\n")[0]: part for part in text.split("\nbackend ")[1:]}
    assert "http-after-response set-status 200 if { status 503 }" in backends["a.one"]
    assert '  http-error status 503 content-type text/plain string "# It stands by.\\n"\n' in backends["a.one"]
    assert "503" not in backends["a.all"]


def test_only_prometheus_gets_through_and_that_is_decided_first() -> None:
    text = render([{"component": "a", "name": "b", "url": "http://127.0.0.1:1/metrics"}])
    front = text.split("\nfrontend ")[1].split("\nbackend ")[0]
    deny = "http-request deny deny_status 403 unless { ssl_c_s_dn(cn) -m str prometheus }"
    assert front.index(deny) < front.index("use_backend")
    assert "ca-file /etc/ashlar/pki/ca/site.crt verify required" in front
    assert "bind 192.0.2.1:9100 ssl" in front and front.count("bind ") == 1
