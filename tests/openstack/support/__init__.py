# SPDX-License-Identifier: Apache-2.0
"""The site under test, and the cloud that it is in."""
