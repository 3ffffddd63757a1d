# SPDX-License-Identifier: Apache-2.0
"""Networks and volumes that exist on paper: all of the control plane is real, and behind it is nothing. For tests only."""
