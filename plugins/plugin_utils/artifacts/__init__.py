# SPDX-License-Identifier: Apache-2.0
"""The catalogue of artifacts, the content-addressed store that holds them, and the sources they come from."""
