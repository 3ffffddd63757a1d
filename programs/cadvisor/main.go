// SPDX-License-Identifier: Apache-2.0

// Command cadvisor shows what the containers of this node use, of Docker and of containerd, at /metrics of a loopback address.
//
// It is the library github.com/google/cadvisor, which kubelets have in them, without the pages, the API and the storages of the upstream program:
// that one cannot be had as a module. Its figures have the names that a kubelet's have.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/google/cadvisor/cache/memory"
	"github.com/google/cadvisor/container"
	_ "github.com/google/cadvisor/container/containerd/install" // registers itself
	_ "github.com/google/cadvisor/container/docker/install"     // registers itself
	v2 "github.com/google/cadvisor/info/v2"
	"github.com/google/cadvisor/manager"
	"github.com/google/cadvisor/metrics"
	"github.com/google/cadvisor/utils/sysfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/utils/clock"
)

// kinds are those that rules and dashboards use: the others cost series and time.
var kinds = container.MetricSet{
	container.CpuUsageMetrics:     {},
	container.MemoryUsageMetrics:  {},
	container.NetworkUsageMetrics: {},
	container.DiskIOMetrics:       {},
	container.DiskUsageMetrics:    {},
	container.OOMMetrics:          {},
}

type settings struct {
	listen   string
	interval time.Duration
	labels   []string
}

func main() {
	// The library's own flags stay what they are; -docker, -containerd and -containerd-namespace are of use.
	listen := flag.String("listen", "127.0.0.1:9103", "address:port of /metrics, on the loopback")
	interval := flag.Duration("interval", 15*time.Second, "how often containers are looked at")
	labels := flag.String("labels", "", "labels of containers that figures carry, divided by commas; all others are left out, since they can be many")
	flag.Parse()
	chosen, err := choose(*listen, *interval, *labels)
	if err == nil {
		err = run(chosen)
	}
	if err != nil {
		log.SetFlags(0)
		log.Fatalf("cadvisor: %v", err)
	}
}

// choose checks what the flags say.
func choose(listen string, interval time.Duration, labels string) (settings, error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil || net.ParseIP(host) == nil || !net.ParseIP(host).IsLoopback() {
		return settings{}, fmt.Errorf("-listen is %q; allowed: a loopback address with a port, as 127.0.0.1:9103, since it asks nobody who they are", listen)
	}
	if interval < time.Second || interval > 5*time.Minute {
		return settings{}, fmt.Errorf("-interval is %s; allowed: 1s to 5m", interval)
	}
	kept := []string{}
	for label := range strings.SplitSeq(labels, ",") {
		if label = strings.TrimSpace(label); label != "" {
			kept = append(kept, label)
		}
	}
	return settings{listen, interval, kept}, nil
}

// run serves until it is told to end.
func run(s settings) error {
	// Units are measured by their own figures; here it is containers, and the whole machine.
	if err := flag.Set("docker_only", "true"); err != nil {
		return err
	}
	dynamic := true
	watched, err := manager.New(memory.New(2*time.Minute, nil), sysfs.NewRealSysFs(), manager.HousekeepingConfig{Interval: &s.interval, AllowDynamic: &dynamic},
		kinds, http.DefaultClient, []string{""}, []string{""}, "", 0) // it wants an empty name where others have none
	if err != nil {
		return fmt.Errorf("containers can't be watched: %w", err)
	}
	if err := watched.Start(); err != nil {
		return fmt.Errorf("containers can't be watched: %w", err)
	}
	defer func() { _ = watched.Stop() }()

	registry := prometheus.NewRegistry()
	registry.MustRegister(
		metrics.NewPrometheusCollector(watched, metrics.BaseContainerLabels(s.labels), kinds, clock.RealClock{},
			v2.RequestOptions{IdType: v2.TypeName, Count: 1, Recursive: true}),
		metrics.NewPrometheusMachineCollector(watched, kinds),
	)
	listener, err := net.Listen("tcp", s.listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: pages(registry), ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second}
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	go func() {
		<-ended.Done()
		_ = server.Close()
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// pages are /health and /metrics. One container that can't be read hides no other.
func pages(gatherer prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "well") })
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	return mux
}
