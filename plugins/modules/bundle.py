# SPDX-License-Identifier: Apache-2.0
"""Documents ashlar.stack.bundle, whose action plugin does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bundle
short_description: Writes one archive that installs an air-gapped site
version_added: "1.0.0"
author: Ashlar contributors (@ashlar)
description:
  - Packs this collection, the wheels that its C(requirements.txt) pins and the store's files of a site into one archive.
  - Unpacked on a machine without any network, its C(install.sh) creates the virtual environment and fills the store; then C(site.yml) runs as usual.
  - It never contains credentials.
options:
  path:
    description: The archive, ending in C(.tar.gz), C(.tar.zst) or C(.tar).
    type: path
    required: true
  name:
    description: The folder that it unpacks to.
    type: str
    required: true
  artifacts:
    description: The artifacts to pack, as in M(ashlar.stack.store). The store must have them all.
    type: raw
    required: true
  architectures:
    description: As in M(ashlar.stack.store).
    type: list
    elements: str
  codenames:
    description: As in M(ashlar.stack.store).
    type: list
    elements: str
  catalogues:
    description: As in M(ashlar.stack.store).
    type: list
    elements: path
  store:
    description: As in M(ashlar.stack.store).
    type: path
  wheels:
    description: Whether to pack the wheels. They are for the Python version and architecture that this runs on.
    type: bool
    default: true
attributes:
  check_mode:
    description: Says whether the archive would be written.
    support: full
  diff_mode:
    description: An archive has no diff.
    support: none
notes:
  - Runs on the controller, once a play.
"""

EXAMPLES = r"""
- name: The bundle of the site is written
  ashlar.stack.bundle:
    path: /srv/ashlar-example-2026.11.tar.gz
    name: ashlar-example-2026.11
    artifacts: "{{ artifact_versions }}"
"""

RETURN = r"""
path:
  description: The archive.
  returned: success
  type: str
size:
  description: Its bytes.
  returned: when not in check mode
  type: int
artifacts:
  description: How many artifacts it holds.
  returned: when not in check mode
  type: int
seconds:
  description: How long it took.
  returned: when not in check mode
  type: float
"""
