# SPDX-License-Identifier: Apache-2.0
"""The distributions that nodes may run. What differs between them is in docs/distributions.md."""

from __future__ import annotations

# By ID and VERSION_ID of os-release(5): the codename, by which apt knows a release and the store its packages.
DISTRIBUTIONS = {
    "debian": {"12": "bookworm", "13": "trixie"},
    "ubuntu": {"22.04": "jammy", "24.04": "noble", "26.04": "resolute"},
}


def distribution_of(codename: str) -> str:
    """The ID of the distribution that has a release of this codename; "" for a codename that is in none of them."""
    return next((name for name, releases in DISTRIBUTIONS.items() if codename in releases.values()), "")
