# SPDX-License-Identifier: Apache-2.0
"""Documents ashlar.stack.backup_open, whose action plugin does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: backup_open
short_description: Opens a backup that M(ashlar.stack.backup) made
version_added: "1.0.0"
author: Ashlar contributors (@ashlar)
description:
  - Decrypts a backup and puts its contents into a folder once all of it is proven. It is authentic to its last byte, its format is known, and every file that
    its manifest names is there with its size and sha256, and nothing else.
  - A backup that is cut short, damaged, made for others or written by a newer version is one error, and O(into) stays as it was.
options:
  source:
    description:
      - A file of the controller, a destination as in O(ashlar.stack.backup#module:to) followed by the name of a backup, or a destination alone,
        which means the newest backup there.
    type: str
    required: true
  identity:
    description:
      - File with the secret key of one of the recipients, readable by its owner alone. An identity of age, as C(age-keygen) writes it, or an OpenSSH private
        key of type ed25519 without passphrase.
    type: path
    required: true
  into:
    description:
      - Folder that gets the contents, for its owner alone (0700). One that an earlier call has made, or that is empty, is replaced; any other is refused.
    type: path
    required: true
  site:
    description: Only backups of this site count where O(source) is a destination alone. Needed where backups of several sites are kept together.
    type: str
attributes:
  check_mode:
    description: The backup is read and proven to its end, and nothing is written.
    support: full
  diff_mode:
    description: A backup has no diff.
    support: none
notes:
  - Runs on the controller, once a play.
  - While it works, the contents are in C(<into>.part), also for the owner alone; it is removed if anything is wrong.
"""

EXAMPLES = r"""
- name: The newest backup is open
  ashlar.stack.backup_open:
    source: s3://backups-of-example/ashlar
    identity: ~/ashlar-identity.txt
    into: /run/user/0/ashlar/restore
  register: backup

- name: What it says of the site
  ansible.builtin.debug:
    msg: "{{ backup.about.release }}, etcd's data is in {{ backup.parts.etcd['snapshot.db'] }}"
"""

RETURN = r"""
name:
  description: Name of the file that was opened.
  returned: success
  type: str
  sample: prod-20261129T101500Z.tar.age
about:
  description: What was said about the site when the backup was made.
  returned: success
  type: dict
created:
  description: When the backup was made (UTC).
  returned: success
  type: str
  sample: "2026-11-29T10:15:00Z"
parts:
  description: Component, to file names, to paths below O(into).
  returned: success
  type: dict
  sample: {etcd: {snapshot.db: /run/user/0/ashlar/restore/parts/etcd/snapshot.db}}
site:
  description: The site's folder below O(into).
  returned: success
  type: str
  sample: /run/user/0/ashlar/restore/site
"""
