# SPDX-License-Identifier: Apache-2.0
"""Well-known places act by themselves, once for each content, and tolerate what a container cannot do."""

from __future__ import annotations

import pytest
from ansible_collections.ashlar.stack.plugins.module_utils.host.run import Completed
from ansible_collections.ashlar.stack.plugins.module_utils.tree.apply import Attributes, TreeError, TreeSpec
from ansible_collections.ashlar.stack.plugins.module_utils.tree.effects import EffectError, Setting, parse_sysctl, place_of
from fake_host import FakeHost

SPEC = TreeSpec("app")


def programs(host: FakeHost) -> list[str]:
    return [call[0] for call in host.calls]


def test_users_are_made_before_their_files(host: FakeHost):
    spec = TreeSpec(
        "app",
        files=(Attributes("/etc/app/*", owner="app", group="app"),),
        directories=(Attributes("/var/lib/app", owner="app", group="app"),),
    )
    sources = {"/etc/sysusers.d/app.conf": "u app - -\n", "/etc/app/a": "1"}
    assert host.lay(spec, sources, check=True).changed
    assert "app" not in host.users
    assert host.lay(spec, sources).changed
    assert "app" in host.users
    assert host.text("/etc/app/a") == "1"
    assert not host.lay(spec, sources).changed
    assert programs(host) == ["systemd-sysusers"]


def test_a_user_that_vanished_is_made_again(host: FakeHost):
    spec = TreeSpec("app", files=(Attributes("/etc/app/*", owner="app"),))
    sources = {"/etc/sysusers.d/app.conf": "u app - -\n", "/etc/app/a": "1"}
    host.lay(spec, sources)
    host.users.discard("app")
    host.lay(spec, sources)
    assert "app" in host.users


def test_an_owner_that_sysusers_does_not_make_is_told(host: FakeHost):
    spec = TreeSpec("app", files=(Attributes("/etc/app/*", owner="ghost"),))
    with pytest.raises(TreeError, match="ghost"):
        host.lay(spec, {"/etc/sysusers.d/app.conf": "u app - -\n", "/etc/app/a": "1"})
    assert not host.path("/etc/app/a").exists()


def test_temporary_files_are_made_once_for_each_content(host: FakeHost):
    host.lay(SPEC, {"/etc/tmpfiles.d/app.conf": "d /run/app\n"})
    host.lay(SPEC, {"/etc/tmpfiles.d/app.conf": "d /run/app\n"})
    assert host.made == ["/etc/tmpfiles.d/app.conf"]
    host.lay(SPEC, {"/etc/tmpfiles.d/app.conf": "d /run/other\n"})
    assert len(host.made) == 2


def test_a_program_that_fails_is_told_and_asked_again_by_the_next_run(host: FakeHost):
    host.programs["systemd-tmpfiles"] = lambda command: Completed(65, err="Unknown command type 'z9'.")
    with pytest.raises(TreeError, match="Unknown command type"):
        host.lay(SPEC, {"/etc/tmpfiles.d/app.conf": "z9 /run/app\n"})
    host.programs.clear()
    assert host.lay(SPEC, {"/etc/tmpfiles.d/app.conf": "z9 /run/app\n"}).changed
    assert host.made == ["/etc/tmpfiles.d/app.conf"]


def test_kernel_settings_are_set_once(host: FakeHost):
    sources = {"/etc/sysctl.d/90-app.conf": "# comment\n; too\n\nvm.swappiness = 10\n"}
    assert host.lay(SPEC, sources).changed
    assert host.text("/proc/sys/vm/swappiness") == "10\n"
    host.put("/proc/sys/vm/swappiness", "30\n")
    assert not host.lay(SPEC, sources).changed
    assert host.text("/proc/sys/vm/swappiness") == "30\n"


def test_kernel_settings_that_do_not_hold_are_a_warning_once_and_are_tried_again(host: FakeHost):
    sources = {"/etc/sysctl.d/90-app.conf": "net.bridge.bridge-nf-call-iptables = 1\nvm/swappiness=60\n-net.core.nothing = 1\n"}
    first = host.lay(SPEC, sources)
    assert len(first.warnings) == 1
    assert "net.bridge.bridge-nf-call-iptables = 1 does not hold" in first.warnings[0]
    second = host.lay(SPEC, sources)
    assert (second.changed, second.warnings) == (False, [])
    host.put("/proc/sys/net/bridge/bridge-nf-call-iptables", "0\n")
    assert host.lay(SPEC, sources).changed
    assert host.text("/proc/sys/net/bridge/bridge-nf-call-iptables") == "1\n"
    assert not host.lay(SPEC, sources).changed


@pytest.mark.parametrize("line", ["vm.swappiness 10", "vm swappiness = 10", "= 10", "vm..x = 1", "key;x = 1"])
def test_what_is_no_kernel_setting_stops_before_anything_is_written(host: FakeHost, line: str):
    with pytest.raises(TreeError, match=r"90-app.conf line 2: .*allowed is 'key = value'"):
        host.lay(SPEC, {"/etc/sysctl.d/90-app.conf": f"vm.swappiness = 10\n{line}\n", "/etc/a": "1"})
    assert not host.path("/etc/a").exists()


def test_kernel_settings_in_all_their_forms():
    text = "a.b/c = 1  2\t3\nnet/ipv4/conf/eth0.1/x = 1\n-q.r = 5\n-s.*\nkernel.core_pattern = |/bin/x -a=%p\n"
    assert parse_sysctl("/x", text) == [
        Setting("a/b.c", "1 2 3"),
        Setting("net/ipv4/conf/eth0.1/x", "1"),
        Setting("q/r", "5", True),
        Setting("kernel/core_pattern", "|/bin/x -a=%p"),
    ]
    with pytest.raises(EffectError, match="/etc/sysctl.d/x.conf line 1"):
        parse_sysctl("/etc/sysctl.d/x.conf", "../../etc/passwd = 1")


def test_modules_are_loaded_before_the_settings_that_need_them(host: FakeHost):
    host.loadable.add("br-net")
    order: list[str] = []
    host.tick = lambda name: order.append(name)
    host.path("/sys/module/overlay").mkdir()
    sources = {"/etc/modules-load.d/app.conf": "# modules\noverlay\nbr-net\nnope\n", "/etc/sysctl.d/app.conf": "vm.swappiness = 1\n"}
    result = host.lay(SPEC, sources)
    assert host.calls == [["modprobe", "-a", "br-net", "nope"]]
    assert len(result.warnings) == 1
    assert "kernel module nope is not loaded" in result.warnings[0]
    assert host.text("/proc/sys/vm/swappiness") == "1\n"
    second = host.lay(SPEC, sources)
    assert (second.changed, second.warnings, len(host.calls)) == (False, [], 1)


def test_only_files_that_are_read_there_take_effect():
    assert place_of("/etc/sysctl.d/a.conf") == "/etc/sysctl.d/"
    assert place_of("/etc/sysctl.d/README") is None
    assert place_of("/etc/sysctl.d/sub/a.conf") is None
    assert place_of("/etc/app.conf") is None
