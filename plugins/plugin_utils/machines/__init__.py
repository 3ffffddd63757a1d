# SPDX-License-Identifier: Apache-2.0
"""Machines, whoever makes or knows them: what they are, where they are read from, and how they become hosts of the inventory."""
