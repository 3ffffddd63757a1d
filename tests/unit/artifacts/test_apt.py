# SPDX-License-Identifier: Apache-2.0
"""Sources of the controller's apt become those of the nodes' distribution, and apt's failures are told apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.apt import (
    CARRIED,
    AptRoot,
    AptSource,
    derive,
    failure,
    host_sources,
    parse_deb822,
    parse_one_line,
)
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.errors import ArtifactError, ChecksumMismatch, SourceUnavailable

DEB822 = """\
Types: deb
# URIs: http://old.example.com/debian
URIs: http://deb.example.com/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://security.example.com/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Types: deb
URIs: https://other.example.com/apt
Suites: cloud-sdk-bookworm
Components: main

Types: deb
URIs: https://off.example.com/debian
Suites: bookworm
Components: main
Enabled: no
"""


def test_the_distributions_own_entries_and_no_others_are_taken_over() -> None:
    assert derive(parse_deb822(DEB822), "bookworm", "trixie") == [
        AptSource(("http://deb.example.com/debian",), ("trixie", "trixie-updates"), ("main",), "/usr/share/keyrings/debian-archive-keyring.gpg"),
        AptSource(
            ("http://security.example.com/debian-security",),
            ("trixie-security",),
            ("main",),
            "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc",
        ),
    ]


def test_the_old_format() -> None:
    text = """
# deb http://x.example.com/debian trixie main
deb [arch=amd64 signed-by=/k.gpg] http://deb.example.com/debian trixie main contrib # why
deb-src http://deb.example.com/debian trixie main
deb http://deb.example.com/flat ./
"""
    assert parse_one_line(text) == [AptSource(("http://deb.example.com/debian",), ("trixie",), ("main", "contrib"), "/k.gpg")]


def test_what_is_written_is_read_again() -> None:
    for source in derive(parse_deb822(DEB822), "bookworm", "bookworm"):
        assert parse_deb822(source.deb822()) == [source]


def machine(tmp_path: Path, sources: str, distribution: str = "debian", codename: str = "bookworm") -> Path:
    (tmp_path / "etc/apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "etc/os-release").write_text(f'ID={distribution}\nVERSION_CODENAME="{codename}"\n')
    (tmp_path / "etc/apt/sources.list.d/debian.sources").write_text(sources)
    return tmp_path


def test_a_machine_is_asked_for_its_sources(tmp_path: Path) -> None:
    distribution, codename, found = host_sources(machine(tmp_path, DEB822))
    assert (distribution, codename, len(found)) == ("debian", "bookworm", 3)


UBUNTU = """\
Types: deb
URIs: http://archive.ubuntu.com/ubuntu/
Suites: noble noble-updates noble-backports
Components: main restricted universe multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg

Types: deb
URIs: http://security.ubuntu.com/ubuntu/
Suites: noble-security
Components: main restricted universe multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg
"""


@pytest.mark.parametrize(
    ("distribution", "codename", "sources", "wanted", "suites"),
    [
        ("ubuntu", "noble", UBUNTU, "noble", ["noble", "noble-updates", "noble-security"]),
        ("ubuntu", "noble", UBUNTU, "jammy", ["jammy", "jammy-updates", "jammy-security"]),
        ("linuxmint", "wilma", UBUNTU, "noble", ["noble", "noble-updates", "noble-security"]),
        ("debian", "bookworm", f"{DEB822}\n{UBUNTU}", "noble", ["noble", "noble-updates", "noble-security"]),
        ("debian", "bookworm", f"{DEB822}\n{UBUNTU}", "trixie", ["trixie", "trixie-updates", "trixie-security"]),
    ],
)
def test_nodes_of_another_distribution_need_entries_of_theirs(
    tmp_path: Path, distribution: str, codename: str, sources: str, wanted: str, suites: list[str]
) -> None:
    root = AptRoot(tmp_path / "root", wanted, "amd64", machine(tmp_path, sources, distribution, codename))
    assert [suite for source in root._sources()[1] for suite in source.suites] == suites


def test_a_controller_of_another_distribution_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"\(debian bookworm\) has no entry of ubuntu to reach noble by; add one"):
        AptRoot(tmp_path / "root", "noble", "amd64", machine(tmp_path, DEB822)).prepare(lambda line: None)


def test_a_machine_without_apt_falls_through(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="no apt"):
        host_sources(tmp_path)


def test_a_machine_without_an_entry_of_its_own_says_so(tmp_path: Path) -> None:
    host = machine(tmp_path, DEB822.replace("bookworm", "stable"))
    with pytest.raises(SourceUnavailable, match=r"\(debian bookworm\) has no entry of debian to reach trixie"):
        AptRoot(tmp_path / "root", "trixie", "amd64", host).prepare(lambda line: None)


@pytest.mark.parametrize(
    ("line", "carried"),
    [
        ('Acquire::http::Proxy "http://proxy:3128";', True),
        ('Acquire::Check-Valid-Until "false";', True),
        ('Acquire::AllowInsecureRepositories "1";', False),
        ('Acquire::AllowWeakRepositories "1";', False),
        ('APT::Get::AllowUnauthenticated "1";', False),
        ('Acquire::Languages:: "de";', False),
        ('DPkg::Post-Invoke:: "rm -rf /";', False),
    ],
)
def test_ways_to_the_mirror_are_taken_over_and_what_weakens_checks_is_not(line: str, carried: bool) -> None:
    assert bool(CARRIED.match(line)) == carried


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        ("E: Failed to fetch http://x  Could not resolve 'x'", SourceUnavailable),
        ("E: Unable to locate package xyz", SourceUnavailable),
        ("W: GPG error: http://x: NO_PUBKEY 0123", ChecksumMismatch),
        ("E: Failed to fetch http://x  Hash Sum mismatch", ChecksumMismatch),
        ("E: The repository 'http://x' is not signed.", ChecksumMismatch),
        ("E: Could not open lock file", ArtifactError),
    ],
)
def test_apts_failures_are_told_apart(output: str, kind: type[Exception]) -> None:
    error = failure("haproxy for trixie", output)
    assert type(error) is kind and output in str(error)
