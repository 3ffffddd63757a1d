# SPDX-License-Identifier: Apache-2.0
"""What makes one HAProxy follow a catalogue of services.

The way through: `catalogue` (JSON -> claims) -> `routes` (claims -> backends and refusals) -> `render` (backends -> files) -> `plan` (files and
the running HAProxy -> commands, or a reload) -> `apply`, which alone touches anything. All before `apply` are pure functions.
"""
