# SPDX-License-Identifier: Apache-2.0
"""Documents ashlar.stack.store, whose action plugin does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: store
short_description: Ensures that the controller's store holds artifacts
version_added: "1.0.0"
author: Ashlar contributors (@ashlar)
description:
  - Obtains every artifact that is missing from the store of the controller. Nothing is sent to hosts; M(ashlar.stack.artifact) does that.
  - Each artifact's sources are tried in order. If one cannot be reached, a line says so and the next is tried; a wrong checksum stops the run.
  - A server has a few seconds to accept a connection, once per run. Proxies and CAs are those of the environment,
    E(https_proxy), E(http_proxy), E(no_proxy), E(SSL_CERT_FILE), E(SSL_CERT_DIR), E(REQUESTS_CA_BUNDLE) and E(CURL_CA_BUNDLE).
  - Several downloads run in parallel and are resumed after an interruption. Two builds from source run at a time.
  - Several runs and checkouts may share a store. A run waits for what another one is obtaining.
  - Takes well under half a second when nothing is missing.
options:
  artifacts:
    description:
      - The artifacts, a mapping of names to versions (such as the variable C(artifact_versions)) or a list of C({name, version}).
    type: raw
    required: true
  architectures:
    description:
      - Architectures of the hosts, V(amd64) and V(arm64). Default the variable C(artifacts_architectures), then the controller's own.
    type: list
    elements: str
  codenames:
    description:
      - Distributions of the hosts, for artifacts that are packages. Default the variable C(artifacts_codenames), then V(trixie).
    type: list
    elements: str
  sources:
    description:
      - Kinds of sources to try, V(mirror), V(upstream), V(go), V(package), in this order.
        Default the variable C(artifacts_sources), then all of them, each artifact in the order of its C(artifact.yml).
    type: list
    elements: str
  mirror:
    description:
      - URL of the operator's mirror. Any web server that serves another store's directory will do; so will a tree
        C(<name>/<version>/<architecture>/<file>) of files whose checksums are recorded. Default the variable C(artifacts_mirror).
    type: str
  checksums:
    description:
      - Which checksums of downloads are accepted. V(published), recorded ones, else those in the publisher's own checksum file,
        which are written to O(lock) at first use and are binding from then on. V(pinned), only recorded ones.
        Default the variable C(site_checksums), then V(published).
    type: str
    choices: [published, pinned]
  lock:
    description:
      - The lock file. Default C(artifacts.lock.txt) in the folder C(site_directory); without a site, in the store.
    type: path
  catalogues:
    description:
      - Directories that describe artifacts, searched before the collection's own C(artifacts/). Default the variable C(artifacts_catalogues).
    type: list
    elements: path
  store:
    description: The store; default the environment variable E(ASHLAR_STORE), then C(~/.cache/ashlar/store).
    type: path
  keep_caches:
    description:
      - Whether to keep the build caches when the store is complete, for frequent builds. They take up to 10 GiB.
        Default the variable C(artifacts_keep_caches), then V(false).
    type: bool
  record:
    description:
      - Whether to record checksums of downloads and reproducible builds in C(artifacts/<name>/<version>/SHA256SUMS).
      - For maintainers of artifacts. Compare recorded checksums of downloads with the publisher's before committing them.
    type: bool
    default: false
  verify:
    description: Whether to verify every blob of the store and replace damaged ones.
    type: bool
    default: false
  collect:
    description:
      - What to remove afterwards. V(blobs), blobs that no artifact of the store refers to. V(artifacts), also every artifact not in O(artifacts);
        other sites that share the store then have to obtain theirs again.
    type: str
    choices: [nothing, blobs, artifacts]
    default: nothing
attributes:
  check_mode:
    description: Says what would be obtained, from which sources.
    support: full
  diff_mode:
    description: Files of the store have no diff.
    support: none
notes:
  - Runs on the controller, once a play.
"""

EXAMPLES = r"""
- name: The store holds every artifact of the site
  ashlar.stack.store:
    artifacts: "{{ artifact_versions }}"

- name: The store holds the next Kubernetes for both architectures, from the company's mirror or built here
  ashlar.stack.store:
    artifacts: {kubernetes: "1.36.3"}
    architectures: [amd64, arm64]
    sources: [mirror, go]
    mirror: https://mirror.example.com/ashlar
"""

RETURN = r"""
contents:
  description: Every artifact; in check mode missing ones have the sources that would be tried.
  returned: success
  type: list
  elements: dict
  contains:
    name: {description: Its name., type: str, returned: always}
    version: {description: Its version., type: str, returned: always}
    architecture: {description: Architecture, with the distribution when it is packages., type: str, returned: always, sample: amd64-trixie}
    source: {description: The kind of source it came from., type: str, returned: always, sample: go}
    changed: {description: Whether it was obtained by this run., type: bool, returned: always}
    seconds: {description: How long that took., type: float, returned: always}
    files: {description: How many files it is., type: int, returned: always}
    size: {description: Their bytes., type: int, returned: always}
    sources: {description: The sources that would be tried., type: list, elements: str, returned: in check mode, when it is missing}
damaged:
  description: Blobs that were damaged, when O(verify=true).
  returned: success
  type: list
  elements: str
removed:
  description: Artifacts and blobs that were collected.
  returned: success
  type: list
  elements: str
freed:
  description: Bytes freed by collecting.
  returned: success
  type: int
locked:
  description: Downloads whose checksums were added to the lock file.
  returned: success
  type: list
  elements: str
store:
  description: Where the store is.
  returned: success
  type: str
  sample: /root/.cache/ashlar/store
"""
