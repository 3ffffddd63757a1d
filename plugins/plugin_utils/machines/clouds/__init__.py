# SPDX-License-Identifier: Apache-2.0
"""What runs at a cloud: a module a provider, each with ``instances(question)`` and ``KIND``, behind which the providers look the same."""
