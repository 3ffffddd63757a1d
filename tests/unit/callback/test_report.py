# SPDX-License-Identifier: Apache-2.0
"""What a person reads of a run."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.ashlar.stack.plugins.plugin_utils.report import (
    Cause,
    Failure,
    Play,
    Task,
    again,
    causes_of,
    change_lines,
    changes_of,
    describe,
    duration,
    failure_summary,
    figures,
    layer_and_name,
    node_rows,
    page_sections,
    plain,
    plan,
    plan_sections,
    play_line,
    recap_line,
    section,
    some,
    timings,
    unreachable_cause,
    unrescued,
)


def a_play() -> Play:
    installed = Task("coordination | etcd", "Etcd is installed and started", 0.0, 1.25, {"n1": 1.2, "n2": 0.9, "n3": 1.0})
    installed.changes = {"n1": {"wrote": ["/etc/etcd/etcd.env"], "restarted": ["etcd.service"]}, "n2": {}, "n3": {}}
    valid = Task("coordination | etcd", "The role's variables are valid", 0.0, 0.01, {"n1": 0.0, "n2": 0.0, "n3": 0.0})
    return Play("coordination | etcd", 0.0, 1.3, [valid, installed])


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (12.34, "12.3 s"), (59.96, "1 min 00 s"), (132, "2 min 12 s"), (3725, "1 h 02 min")]
)
def test_durations_are_told_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_many_names_are_cut_but_never_to_hide_a_single_one() -> None:
    assert some(["a", "b", "c", "d"]) == "a, b, c, d"
    assert some(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_the_name_of_a_play_is_its_layer_and_component() -> None:
    assert layer_and_name("orchestration | kubernetes_control") == ("orchestration", "kubernetes_control")
    assert layer_and_name("Verify") == ("", "Verify")


def test_a_play_is_one_line_with_its_outcome() -> None:
    play = a_play()
    assert play_line(play, plain) == "  etcd                     3 hosts     3 changed            1.3 s"
    play.tasks[1].changes = {}
    assert "ok" in play_line(play, plain)
    play.tasks[1].failed = 2
    assert "2 failed" in play_line(play, plain)


def test_hosts_on_which_the_same_changed_are_told_together() -> None:
    assert change_lines(a_play(), plain) == [
        "    ~ Etcd is installed and started (n1)",
        "      wrote /etc/etcd/etcd.env; restarted etcd.service",
        "    ~ Etcd is installed and started (n2, n3)",
    ]


def told(result: dict[str, Any]) -> str:
    return describe(changes_of(result))


def test_what_changed_is_told_from_the_results_of_the_modules() -> None:
    tree = {"changed_paths": ["/etc/a", "/etc/b", "/etc/c", "/etc/d"], "removed_paths": [], "started": [], "restarted": ["etcd.service"]}
    assert told(tree) == "wrote /etc/a, /etc/b and 2 more; restarted etcd.service"
    assert told({"artifacts": {"etcd": {"from": "", "to": "3.7.3"}}, "packages": ["nftables"]}) == (
        "installed etcd 3.7.3, nftables"
    )
    assert told({"issued": {"etcd/server": "is missing"}}) == "issued etcd/server"
    left = {"artifacts": {"etcd": {"from": "3.7.3", "to": ""}}, "removed": {"etcd": ["3.7.3"]}}
    assert told(left) == "removed etcd"
    assert told({"dest": "/etc/motd"}) == "wrote /etc/motd"
    obtained, there = {"name": "etcd", "version": "3.7.3", "changed": True}, {"name": "runc", "version": "1.5.2", "changed": False}
    assert told({"contents": [obtained, there]}) == "obtained etcd 3.7.3"
    assert told({"contents": [there]}) == told({"rc": 0}) == ""


def test_every_problem_of_a_host_has_its_own_remedy() -> None:
    problems = [{"message": "has 1 CPU", "remedy": "give it more"}, {"message": "the clock is 3 hours ahead", "remedy": "set it"}]
    assert causes_of({"msg": "2 problems", "problems": problems}) == (
        Cause("has 1 CPU", "give it more"),
        Cause("the clock is 3 hours ahead", "set it"),
    )


def test_a_cause_is_the_message_with_its_remedy_and_what_a_program_printed_last() -> None:
    assert causes_of({"msg": "Task failed: Action failed: no leader", "remedy": "start more members"}) == (
        Cause("no leader", "start more members"),
    )
    printed = "\n".join(f"line {number}" for number in range(20))
    assert causes_of({"msg": "non-zero return code", "stderr": printed})[0].message.splitlines() == [
        "non-zero return code",
        *(f"line {number}" for number in range(12, 20)),
    ]
    assert causes_of({}) == (Cause("the task failed without a message"),)


def test_failed_items_are_told_by_item() -> None:
    results = [{"item": "a"}, {"item": "b", "failed": True, "msg": "no such file"}]
    assert causes_of({"msg": "One or more items failed", "results": results}) == (Cause("b: no such file"),)


def test_hidden_results_stay_hidden() -> None:
    (cause,) = causes_of({"censored": "hidden", "msg": "password is s3cret"})
    assert "s3cret" not in cause.message
    hidden = {"failed": True, "item": "s3cret", "_ansible_no_log": True, "censored": "hidden"}
    assert "s3cret" not in causes_of({"results": [hidden]})[0].message


def test_the_summary_tells_by_host_task_cause_remedy_and_the_command() -> None:
    late = Failure(
        "n1", "10.0.0.11", "etcd: It answers", "roles/etcd/tasks/main.yml:3", (Cause("no leader\n  seen: 503", "start members"),)
    )
    failures = [
        late,
        Failure("n2", "10.0.0.12", late.task, late.where, late.causes),
        Failure(
            "n3",
            "10.0.0.13",
            "base | hosts: x",
            "",
            (
                unreachable_cause(
                    {"msg": "Task failed: Failed to connect to the host via ssh: ssh: connect to host 10.0.0.13 port 22: refused"},
                    "n3",
                    "10.0.0.13",
                ),
            ),
            True,
        ),
    ]
    assert failure_summary(failures, 4, "ansible-playbook site.yml", plain) == [
        "",
        "Failed on 3 of 4 hosts",
        "",
        "n3 (10.0.0.13) could not be reached",
        "  task    base | hosts: x",
        "  cause   connect to host 10.0.0.13 port 22: refused",
        "  remedy  see that the machine runs and that its SSH server answers at 10.0.0.13; to go on without",
        "          it: --limit '!n3'",
        "",
        "n1 (10.0.0.11), n2 (10.0.0.12)",
        "  task    etcd: It answers",
        "  where   roles/etcd/tasks/main.yml:3",
        "  cause   no leader",
        "            seen: 503",
        "  remedy  start members",
        "",
        "When that is put right, run it again; it goes on from where it stopped:",
        "  ansible-playbook site.yml",
        "",
    ]


@pytest.mark.parametrize(
    ("said", "cause", "remedy"),
    [
        (
            "ssh: connect to host 10.0.0.13 port 22: Connection refused",
            "connect to host 10.0.0.13 port 22: Connection refused",
            "nothing listens on port 22 of 10.0.0.13: set ansible_port",
        ),
        ("ops@10.0.0.13: Permission denied (publickey,password).", "ops@10.0.0.13: Permission denied (publickey,password).", "set ansible_user"),
        ("Received disconnect from 10.0.0.13 port 22:2: Too many authentication failures", "", "IdentitiesOnly"),
        (
            "@@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
            "Host key verification failed.",
            "ssh-keygen -R 10.0.0.13",
        ),
        ("ssh: Could not resolve hostname n3: Name or service not known", "Could not resolve hostname n3", "ansible_host"),
        ("ssh: connect to host 10.0.0.13 port 22: Connection timed out", "", "see that the machine runs, that its address 10.0.0.13 is right"),
        ("ssh: connect to host 10.0.0.13 port 22: No route to host", "", "see that the machine runs"),
        ("kex_exchange_identification: Connection closed by remote host", "", "ansible_port is that of an SSH server"),
        ("mux_client_request_session: something new", "mux_client_request_session: something new", "its SSH server answers at 10.0.0.13"),
    ],
)
def test_an_unreachable_host_gets_the_likely_reason(said: str, cause: str, remedy: str) -> None:
    told = unreachable_cause({"msg": f"Task failed: Failed to connect to the host via ssh: {said}"}, "n3", "10.0.0.13")
    assert cause in told.message
    assert remedy in told.remedy
    assert told.remedy.endswith("; to go on without it: --limit '!n3'")
    assert "{" not in told.remedy


def test_no_line_is_wider_than_the_screen_unless_it_is_one_word() -> None:
    failure = Failure("n1", "", "t", "", (Cause("word " * 100, "/a/path/" + "x" * 120),))
    wide = [line for line in failure_summary([failure], 1, "c", plain, width=80) if len(line) > 80]
    assert [line.split() for line in wide] == [["/a/path/" + "x" * 120]] or [len(line.split()) for line in wide] == [2]


def test_the_command_to_run_again_is_quoted_and_hides_secrets() -> None:
    assert again(["/venv/bin/ansible-playbook", "site.yml", "-l", "!n3", "-e", "a=b"]) == "ansible-playbook site.yml -l '!n3' -e a=b"
    assert again(["x", "-e", "admin_password=hunter2", "--extra-vars=token=abc", '-e{"api_key": "k"}', "-i", "key=1"]) == (
        "x -e ... --extra-vars=... -e... -i key=1"
    )


def test_lines_of_a_pair_are_kept_so_that_a_command_can_be_copied() -> None:
    command = f"curl --cacert {'long/' * 30}ca.crt \\\n  https://hello.example/"
    lines = section("Edge", {"sample": command}, plain, 60)
    assert lines == ["", "Edge", f"  sample  curl --cacert {'long/' * 30}ca.crt \\", "            https://hello.example/"]


def test_the_closing_page_takes_pairs_rows_and_text() -> None:
    page = page_sections([{"Platform": {"API endpoint": "https://10.0.0.11:6443", "kubeconfig": "a"}}, {"Next": "kubectl get nodes"}])
    assert section("Platform", page["Platform"], plain) == [
        "",
        "Platform",
        "  API endpoint  https://10.0.0.11:6443",
        "  kubeconfig    a",
    ]
    assert section("Next", page["Next"], plain) == ["", "Next", "  kubectl get nodes"]
    assert page_sections("nonsense") == {}
    assert page_sections({"Edge": {"sample": ""}, "Portal": {"name": "a", "other": ""}}) == {"Portal": {"name": "a"}}
    nodes = node_rows(
        {"n1": {"address": "10.0.0.11", "classes": ["control", "worker"]}, "node-2": {"address": "10.0.0.12", "classes": ["worker"]}},
        {"etcd": ["n1"], "containerd": ["n1", "node-2"]},
    )
    assert section("Nodes", nodes, plain) == [
        "",
        "Nodes",
        "  name    address    classes          components",
        "  n1      10.0.0.11  control, worker  2",
        "  node-2  10.0.0.12  worker           1",
    ]


def test_a_large_site_does_not_fill_the_screen() -> None:
    nodes = node_rows({f"n{number}": {"address": "10.0.0.1", "classes": ["worker"]} for number in range(1000)}, {})
    lines = section("Nodes", nodes, plain)
    assert len(lines) < 40
    assert lines[-1] == "  ... and 970 more"


def test_figures_name_the_slowest_tasks_and_who_changed() -> None:
    lines = figures([a_play()], 72.2, {"n1": 2, "n2": 0}, plain)
    assert lines == [
        "",
        "This run",
        "  time        1 min 12 s",
        "  host-tasks  6, at most 2 on one host (n1)",
        "  changed     n1 2",
        "",
        "Slowest tasks",
        "         1.2 s  coordination | etcd: Etcd is installed and started",
    ]
    assert "  changed     nothing" in figures([a_play()], 1, {"n1": 0}, plain)


def test_a_failure_that_a_rescue_dealt_with_is_not_told_at_the_end() -> None:
    def failed(host: str, task: str) -> Failure:
        return Failure(host, "", task, "", (Cause("why"),), False)

    numbers = {"n1": {"rescued": 1, "failures": 1, "unreachable": 0}, "n2": {"rescued": 1, "failures": 0, "unreachable": 0}}
    found = unrescued([failed("n1", "tried"), failed("n2", "tried"), failed("n1", "given up")], numbers)
    assert [(each.host, each.task) for each in found] == [("n1", "given up")]


def test_timings_are_for_machines() -> None:
    written = json.loads(json.dumps(timings([a_play()], "site.yml", 1.5, {"n1": {"ok": 2, "changed": 1}})))
    assert written["hosts"] == {"n1": {"host_tasks": 2, "ok": 2, "changed": 1}}
    assert written["tasks"][1] == {
        "play": "coordination | etcd",
        "name": "Etcd is installed and started",
        "seconds": 1.25,
        "hosts": {"n1": 1.2, "n2": 0.9, "n3": 1.0},
        "changed": {"n1": {"wrote": ["/etc/etcd/etcd.env"], "restarted": ["etcd.service"]}, "n2": {}, "n3": {}},
    }
    assert written["problems"] == [] and "plan" not in written
    failure = Failure("n1", "10.0.0.1", "base | hosts: Fit", "", (Cause("has 1 CPU", "give it more"),))
    written = timings([], "site.yml", 1.5, {}, [failure], {})
    assert written["problems"] == [{"host": "n1", "task": "base | hosts: Fit", "message": "n1: has 1 CPU", "remedy": "give it more"}]
    assert written["plan"] == {}


def test_a_plan_is_told_by_component_and_by_node() -> None:
    etcd, bookkeeping = a_play(), Play("every layer | record", 0.0, 0.1, [Task("every layer | record", "Recorded", 0.0, 0.1, {"n1": 0.1}, {"n1": {}})])
    files = [f"/etc/consul/{number}" for number in range(9)]
    written = Task("coordination | consul tokens", "Consul", 0.0, 0.1, {"n3": 0.1}, {"n3": {"wrote": files, "stopped": ["old.service"]}})
    would = plan([etcd, bookkeeping, Play("coordination | consul tokens", 0.0, 0.1, [written])])
    ensured = {"ensure:": ["Etcd is installed and started"]}
    assert would == {
        "n1": {"etcd": {"write": ["/etc/etcd/etcd.env"], "restart": ["etcd.service"]}},
        "n2": {"etcd": ensured},
        "n3": {"etcd": ensured, "consul": {"write": files, "stop": ["old.service"]}},
    }
    assert plan_sections(would, ["n4"], {"etcd": {}}) == {
        "What this would do": {
            "etcd": "write /etc/etcd/etcd.env; restart etcd.service (n1)\nensure: Etcd is installed and started (n2, n3)",
            "consul": "write 9 files; stop old.service (n3)",
        },
        "Nodes": {
            "n1": "1 component, interrupts etcd.service in turn",
            "n2": "1 component, without interruption",
            "n3": "2 components, interrupts old.service",
            "n4": "nothing",
        },
    }
    assert plan_sections({}, ["n1", "n2"], {}) == {"What this would do": "nothing", "Nodes": {"n1, n2": "nothing"}}


def test_the_recap_is_what_tools_look_for() -> None:
    numbers = {"ok": 5, "changed": 2, "unreachable": 0, "failures": 1, "skipped": 0, "rescued": 0, "ignored": 3}
    assert recap_line("n1", numbers) == (
        "n1                         : ok=5    changed=2    unreachable=0    failed=1    skipped=0    rescued=0    ignored=3"
    )
