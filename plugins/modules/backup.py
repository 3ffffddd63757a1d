# SPDX-License-Identifier: Apache-2.0
"""Documents ashlar.stack.backup, whose action plugin does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: backup
short_description: Makes one encrypted file of a site and of what its components hand over
version_added: "1.0.0"
author: Ashlar contributors (@ashlar)
description:
  - Writes C(<site>-<UTC time>.tar.age), a file of age (U(https://age-encryption.org/v1)) that holds a tar, compressed by gzip. Its first member is
    C(manifest.json), which names all files with size and sha256; then follow C(site/) and C(parts/<component>/<file>). Modes are kept, owners are not.
  - Everything in the site's folder goes in, C(credentials/) too, except for C(state/lock.json), sockets and what editors leave behind. Links are followed.
  - What is written is encrypted on its way, so no file in plain text is made, and no copy on the controller.
  - The file has its name only once it is complete. Its size is compared, in a folder and by SSH also its sha256. Only then are older backups removed.
  - Whoever makes backups needs no secret key of them. M(ashlar.stack.backup_open) opens one, and so do C(age -d -i <identity> <file> | tar -xz) and C(rage).
options:
  directory:
    description: The site's folder on the controller.
    type: path
    required: true
  parts:
    description: Component, to file names, to paths on the controller of what the component hands over.
    type: dict
    required: true
  about:
    description: What is said about the site, as it shall stand in the manifest. Its C(site) is the site's name; anything else is free.
    type: dict
    required: true
  to:
    description:
      - Where backups are kept. An absolute folder, C(ssh://user@host[:port]/absolute/folder) or C(s3://bucket/prefix).
      - The last folder is made if it is missing; those around it are not, since perhaps a disk is not mounted.
      - By SSH as C(ssh) does it for the user who runs Ansible (its keys, known hosts and configuration, without asking); the account needs a shell.
      - In S3 with credentials, region and endpoint as the AWS CLI takes them (C(AWS_PROFILE), C(AWS_ENDPOINT_URL) ...).
    type: str
    required: true
  recipients:
    description: Public keys of those who may open the backup, at least one. Of age (C(age1...)) or of SSH (C(ssh-ed25519 ...)).
    type: list
    elements: str
    required: true
  keep:
    description: How many backups of this site are kept at O(to), the new one included.
    type: int
    default: 14
attributes:
  check_mode:
    description: Says what it would do, having checked O(to) and O(recipients); what is at O(to) is listed. Nothing is written, and O(parts) need not be there.
    support: full
  diff_mode:
    description: A backup has no diff.
    support: none
notes:
  - Runs on the controller, once a play.
  - It needs less than 10 MiB of memory, and 100 for S3, however large the backup is.
"""

EXAMPLES = r"""
- name: The site has a new backup
  ashlar.stack.backup:
    directory: "{{ site_directory }}"
    parts: {etcd: {snapshot.db: /run/user/0/ashlar/etcd.db}}
    about: {site: prod, release: "2026.11", versions: "{{ artifact_versions }}"}
    to: ssh://backup@vault.example.com/srv/ashlar
    recipients: [age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p]
"""

RETURN = r"""
name:
  description: The backup's name.
  returned: success
  type: str
  sample: prod-20261129T101500Z.tar.age
where:
  description: Where it is, as O(ashlar.stack.backup_open#module:source) takes it.
  returned: success
  type: str
  sample: ssh://backup@vault.example.com/srv/ashlar/prod-20261129T101500Z.tar.age
size:
  description: Its bytes.
  returned: when not in check mode
  type: int
removed:
  description: Names of older backups that were removed, the oldest first.
  returned: success
  type: list
  elements: str
"""
