// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package tools names the command this artifact consists of, so that go.mod and go.sum pin all it needs.
package tools

import (
	_ "github.com/terraform-provider-openstack/terraform-provider-openstack"
)
