# SPDX-License-Identifier: Apache-2.0
"""Tests of the catalogue, the store and its sources."""
