# SPDX-License-Identifier: Apache-2.0
"""A site, compiled: stack + node classes + component manifests -> groups and variables (the plan).

``models``     what is talked about: dataclasses without behaviour
``reading``    YAML and JSON files and where in them something stands
``structure``  JSON Schema errors as sentences
``catalogue``  what the collection has to offer: slots, manifests, stacks, artifacts
``nodes``      who is there, checked
``network``    the site's networks, checked
``options``    the variables of components, checked against their argument specs
``choice``     stack and overrides -> the chosen components, checked
``versions``   the version of each artifact, checked against the catalogue and what is installed
``memory``     which node carries what since earlier runs
``placement``  which component runs where, checked
``compile``    all of the above -> Plan
``report``     problems as what an operator reads
"""

from __future__ import annotations
