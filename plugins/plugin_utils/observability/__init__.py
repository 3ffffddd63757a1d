# SPDX-License-Identifier: Apache-2.0
"""What is checked and made of rules, routes and dashboards on the controller, before any host is touched."""
