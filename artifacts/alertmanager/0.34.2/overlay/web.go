// SPDX-License-Identifier: Apache-2.0

// Package ui takes the place of Alertmanager's pages: its Go module comes without them, because they are compiled from other languages.
package ui

import (
	"net/http"

	"github.com/prometheus/common/route"
)

const page = `<!DOCTYPE html>
<html lang="en"><title>Alertmanager</title><h1>Alertmanager</h1>
<p>This build has the API only. Alerts are on the site's portal; silence them with <code>amtool</code>.</p></html>
`

// Register answers people who open the address in a browser.
func Register(router *route.Router) {
	router.Get("/", func(writer http.ResponseWriter, _ *http.Request) {
		writer.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = writer.Write([]byte(page))
	})
}
