// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestItListensOnTheLoopbackOnly(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:9103", ":9103", "192.0.2.1:9103", "localhost:9103", "127.0.0.1", ""} {
		if _, err := choose(listen, 15*time.Second, ""); err == nil || !strings.Contains(err.Error(), "loopback") {
			t.Errorf("%q is taken: %v", listen, err)
		}
	}
	for _, listen := range []string{"127.0.0.1:9103", "[::1]:9103"} {
		if _, err := choose(listen, 15*time.Second, ""); err != nil {
			t.Errorf("%q is refused: %v", listen, err)
		}
	}
}

func TestAnIntervalIsBounded(t *testing.T) {
	for _, interval := range []time.Duration{0, time.Millisecond, time.Hour} {
		if _, err := choose("127.0.0.1:9103", interval, ""); err == nil {
			t.Errorf("%s is taken", interval)
		}
	}
}

func TestLabelsAreThoseThatWereNamed(t *testing.T) {
	chosen, err := choose("127.0.0.1:9103", time.Second, " a , ,b.c")
	if err != nil || !slices.Equal(chosen.labels, []string{"a", "b.c"}) {
		t.Fatalf("%v, %v", chosen.labels, err)
	}
}

func TestPages(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "container_x", Help: "x"}, func() float64 { return 4 }))
	for path, wanted := range map[string]string{"/health": "well", "/metrics": "container_x 4"} {
		answer := httptest.NewRecorder()
		pages(registry).ServeHTTP(answer, httptest.NewRequest("GET", path, nil))
		if answer.Code != 200 || !strings.Contains(answer.Body.String(), wanted) {
			t.Errorf("%s: %d %s", path, answer.Code, answer.Body)
		}
	}
	answer := httptest.NewRecorder()
	pages(registry).ServeHTTP(answer, httptest.NewRequest("GET", "/api/v1.3/containers", nil))
	if answer.Code != 404 {
		t.Errorf("the upstream API is there: %d", answer.Code)
	}
}
