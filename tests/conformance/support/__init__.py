# SPDX-License-Identifier: Apache-2.0
"""What the conformance tests stand on: the plan, the nodes, the cluster, waits with a limit, and power switches."""
