// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const stateActive = "is active"

// member is this process among all that run this program.
type member struct {
	settings    settings
	sight       sight
	catalogue   *catalogue
	told        *told
	figures     *figures
	term        atomic.Pointer[term]
	leading     sync.Mutex // held while active
	lastProblem string
}

// look has a Service looked at, if this process is active; else whoever is does.
func (m *member) look(key string) {
	if now := m.term.Load(); now != nil {
		now.queue.Add(key)
	}
}

// figures are what is told of the work. state and active hold a string.
type figures struct {
	state, active                        atomic.Value
	writes, failures, repaired, compared atomic.Int64
}

// listen answers /ready and /metrics.
func (f *figures) listen(ctx context.Context, address string, m *member) error {
	f.state.Store("starts")
	f.active.Store("unknown")
	pages := http.NewServeMux()
	pages.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		state := f.state.Load().(string)
		if state != stateActive && state != "stands by" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintf(w, "%s %s. Active: %s.\n", m.settings.Identity, state, f.active.Load())
	})
	pages.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprint(w, f.text(m))
	})
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: pages, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	go func() { _ = server.Serve(listener) }()
	return nil
}

// text has the figures in the text format of Prometheus.
func (f *figures) text(m *member) string {
	var out strings.Builder
	one := func(name, kind, help string, value int64) {
		fmt.Fprintf(&out, "# HELP ashlar_consul_sync_%s %s\n# TYPE ashlar_consul_sync_%s %s\nashlar_consul_sync_%s %d\n", name, help, name, kind, name, value)
	}
	active, instances, services, waiting := 0, 0, 0, 0
	if now := m.term.Load(); now != nil && f.state.Load() == stateActive {
		active = 1
		instances, services = now.count()
		waiting = now.queue.Len()
	}
	one("active", "gauge", "1 on the node that writes.", int64(active))
	one("instances", "gauge", "Instances in the catalogue, where active.", int64(instances))
	one("services", "gauge", "Services with instances in the catalogue, where active.", int64(services))
	one("refused_services", "gauge", "Services that something is refused of.", int64(m.told.count()))
	one("waiting_services", "gauge", "Services that wait to be looked at.", int64(waiting))
	one("writes_total", "counter", "Transactions sent to Consul.", f.writes.Load())
	one("failures_total", "counter", "Attempts that failed and were tried again.", f.failures.Load())
	one("repaired_services_total", "counter", "Services whose entries were not what had been written.", f.repaired.Load())
	one("compared_timestamp_seconds", "gauge", "When the whole catalogue was last compared.", f.compared.Load())
	return out.String()
}

// told remembers what is refused of which Service, and says it once in the log and once as an Event of the Service.
type told struct {
	client   kubernetes.Interface
	identity string
	events   chan [2]string

	mu   sync.Mutex
	said map[string]string
}

func newTold(client kubernetes.Interface, identity string) *told {
	return &told{client: client, identity: identity, events: make(chan [2]string, 256), said: map[string]string{}}
}

func (t *told) tell(key, text string) {
	t.mu.Lock()
	before := t.said[key]
	if text == "" {
		delete(t.said, key)
	} else {
		t.said[key] = text
	}
	t.mu.Unlock()
	switch {
	case text == before:
	case text == "":
		log.Printf("%s: nothing is refused any more.", key)
	default:
		log.Printf("%s: %s.", key, text)
		select {
		case t.events <- [2]string{key, text}:
		default: // The log has it; the API is spared a flood.
		}
	}
}

func (t *told) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.said)
}

// run sends the Events, five a second at most.
func (t *told) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case one := <-t.events:
			if err := t.send(ctx, one[0], one[1]); err != nil && ctx.Err() == nil {
				log.Printf("The API takes no Event about %s: %v", one[0], err)
			}
			wait(ctx, 200*time.Millisecond)
		}
	}
}

func (t *told) send(ctx context.Context, key, text string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	namespace, name, _ := strings.Cut(key, "/")
	now := meta.Now()
	_, err := t.client.CoreV1().Events(namespace).Create(ctx, &core.Event{
		ObjectMeta:     meta.ObjectMeta{GenerateName: name + "-", Namespace: namespace},
		InvolvedObject: core.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: namespace, Name: name},
		Type:           core.EventTypeWarning, Reason: "NotInCatalogue", Message: text,
		Source:         core.EventSource{Component: "consul-sync", Host: t.identity},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}, meta.CreateOptions{})
	return err
}
