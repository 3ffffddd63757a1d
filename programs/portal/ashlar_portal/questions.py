# SPDX-License-Identifier: Apache-2.0
"""The charts: what each asks Prometheus, and for which sites it is of use."""

from __future__ import annotations

from dataclasses import dataclass

from .figures import quoted
from .model import Site


@dataclass(frozen=True)
class Question:
    """A chart. `%w` in the query is the window of rates, `%n` the selector of nodes; `label` is the label that names a line."""

    name: str
    title: str
    query: str
    unit: str = ""
    label: str = "node"
    needs: str = ""


SITE = (
    Question("cpu", "Processor in use", '100 * (1 - avg by (node) (rate(node_cpu_seconds_total{mode="idle"}[%w])))', "%"),
    Question("memory", "Memory in use", "100 * (1 - max by (node) (node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes))", "%"),
    Question(
        "network",
        "Network, both ways",
        'sum by (node) (rate(node_network_receive_bytes_total{device!="lo"}[%w]) + rate(node_network_transmit_bytes_total{device!="lo"}[%w]))',
        "B/s",
    ),
    Question(
        "api",
        "Requests to the Kubernetes API",
        'sum by (verb) (rate(apiserver_request_total{verb!~"WATCH|CONNECT"}[%w]))',
        "/s",
        "verb",
        needs="kubernetes_control",
    ),
    Question(
        "etcd",
        "etcd, 99 of 100 writes to disk within",
        "histogram_quantile(0.99, sum by (node, le) (rate(etcd_disk_wal_fsync_duration_seconds_bucket[%w])))",
        "s",
        needs="etcd",
    ),
    Question(
        "ceph",
        "Ceph, time of a write by disk",
        "sum by (ceph_daemon) (rate(ceph_osd_op_w_latency_sum[%w])) / sum by (ceph_daemon) (rate(ceph_osd_op_w_latency_count[%w]))",
        "s",
        "ceph_daemon",
        needs="ceph_mgr",
    ),
    Question(
        "pods",
        "Pods by phase",
        "sum by (phase) (max by (namespace, pod, phase) (kube_pod_status_phase)) > 0",
        "",
        "phase",
        needs="kube_state_metrics",
    ),
    Question(
        "edge",
        "Requests through the edge, by answer",
        'sum by (code) (rate(haproxy_frontend_http_responses_total{component="haproxy"}[%w]))',
        "/s",
        "code",
        needs="haproxy",
    ),
)

NODE = (
    Question(
        "cpu",
        "Processor in use",
        '100 * sum by (mode) (rate(node_cpu_seconds_total{mode!="idle", %n}[%w])) / scalar(count(node_cpu_seconds_total{mode="idle", %n}))',
        "%",
        "mode",
    ),
    Question("memory", "Memory in use", "max by (node) (node_memory_MemTotal_bytes{%n} - node_memory_MemAvailable_bytes{%n})", "B"),
    Question("load", "Load of one minute", "max by (node) (node_load1{%n})", ""),
    Question(
        "network",
        "Network",
        'label_replace(sum by (node) (rate(node_network_receive_bytes_total{device!="lo", %n}[%w])), "way", "received", "", "")'
        ' or label_replace(sum by (node) (rate(node_network_transmit_bytes_total{device!="lo", %n}[%w])), "way", "sent", "", "")',
        "B/s",
        "way",
    ),
    Question(
        "disk",
        "Disk",
        'label_replace(sum by (node) (rate(node_disk_read_bytes_total{%n}[%w])), "way", "read", "", "")'
        ' or label_replace(sum by (node) (rate(node_disk_written_bytes_total{%n}[%w])), "way", "written", "", "")',
        "B/s",
        "way",
    ),
    Question(
        "full", "Root file system in use", '100 * (1 - node_filesystem_avail_bytes{mountpoint="/", %n} / node_filesystem_size_bytes{mountpoint="/", %n})', "%"
    ),
)


def of_site(site: Site) -> tuple[Question, ...]:
    """The charts that this site has figures for."""
    return tuple(question for question in SITE if not question.needs or site.has(question.needs))


def written(question: Question, step: float, node: str = "") -> str:
    """Its PromQL for points that are `step` seconds apart: rates over four scrapes at least, and over all that lies between two points."""
    window = f"{max(60, int(step * 2))}s"
    return question.query.replace("%w", window).replace("%n", f"node={quoted(node)}")
