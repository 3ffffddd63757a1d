# SPDX-License-Identifier: Apache-2.0
"""What a platform owes its users, proven on real nodes: `ASHLAR_INVENTORY=inventories/<site> pytest tests/conformance`."""
