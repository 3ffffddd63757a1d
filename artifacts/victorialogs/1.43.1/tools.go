// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package tools names the command that is built.
package tools

import _ "github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs"
