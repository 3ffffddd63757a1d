# SPDX-License-Identifier: Apache-2.0
"""Machines in a real OpenStack."""
