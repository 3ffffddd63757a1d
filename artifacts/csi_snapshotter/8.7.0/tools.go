// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package tools names the commands this artifact consists of, so that go.mod and go.sum pin all they need.
package tools

import (
	_ "github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter"
	_ "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller"
)
