# SPDX-License-Identifier: Apache-2.0
"""States of Terraform and OpenTofu: where they come from and what stands in them."""
