// SPDX-License-Identifier: Apache-2.0

// Command log-collector sends the journal and the logs of containers to every log store, and loses nothing on the way.
//
// Lines are read, masked, limited by source and packed into batches, which go to a spool on the disk together with how far the sources were read (spool.go). Each store is sent
// from there at its own pace (send.go); what a store took just before it was killed is sent again. So a line may come twice after a store was killed, and never not at all.
//
// journal.go and files.go read, line.go and mask.go decide about lines, limit.go about sources, batch.go brings them together.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// settings are what the file named by -settings holds.
type settings struct {
	Node          nodeSettings    `json:"node"`
	Stores        []storeSettings `json:"stores"`
	State         string          `json:"state"`          // directory of the spool
	Status        string          `json:"status"`         // address:port of /ready and /metrics
	Journalctl    string          `json:"journalctl"`     // program
	Pods          string          `json:"pods"`           // directory of the containers' logs
	FirstHours    float64         `json:"first_hours"`    // how much of the journal is sent when a node is new
	SpoolMiB      int64           `json:"spool_mib"`      // the oldest lines go when it is full
	LineKiB       int             `json:"line_kib"`       // of a longer line the beginning is kept
	SettleSeconds float64         `json:"settle_seconds"` // after so long a store has what it took on its disk
	Limit         limitSettings   `json:"limit"`
	Masks         []maskSettings  `json:"masks"`
}

type nodeSettings struct {
	Site  string            `json:"site"`
	Class string            `json:"class"`
	Name  string            `json:"name"`
	Units map[string]string `json:"units"` // unit -> component
}

// head is the JSON of the fields that all lines of the node have.
func (n nodeSettings) head() []byte {
	return field(field(field(nil, "site", n.Site), "class", n.Class), "node", n.Name)
}

func read(path string) (settings, error) {
	s := settings{
		State: "/var/lib/log-collector", Status: "127.0.0.1:9430", Journalctl: "/usr/bin/journalctl", Pods: "/var/log/pods",
		FirstHours: 24, SpoolMiB: 1024, LineKiB: 1024, SettleSeconds: 10, Limit: limitSettings{5000, 200000},
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// figures are what is told of the work.
type figures struct {
	read, limited, masked, bytes, lost atomic.Int64
	journal                            atomic.Bool // is being read
}

func main() {
	log.SetFlags(0)
	path := flag.String("settings", "/etc/log-collector/settings.json", "file with the settings")
	check := flag.Bool("check", false, "check the settings and end")
	flag.Parse()
	if err := run(*path, *check); err != nil {
		log.Fatalf("log-collector: %v", err)
	}
}

func run(path string, check bool) error {
	s, err := read(path)
	if err != nil {
		return err
	}
	masks, err := newMasks(s.Masks)
	if err != nil || check {
		return err
	}
	ctx, end := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer end()
	spool, err := openSpool(filepath.Join(s.State, "spool"), s.SpoolMiB<<20)
	if err != nil {
		return err
	}
	made := &figures{}
	stores, err := openStores(s, spool)
	if err != nil {
		return err
	}
	if err := listen(ctx, s.Status, made, spool, stores); err != nil {
		return err
	}
	lines := newCollector(masks, s.Limit, s.LineKiB<<10, spool, made)
	saved := spool.read()
	cursor := ""
	if at := saved[journalReader]; at != nil {
		cursor = at.Cursor
	}

	// Readers stop first, then what they read goes to the spool; whoever sends stops last.
	written := make(chan struct{})
	var readers, others sync.WaitGroup
	readers.Go(func() {
		lines.followJournal(ctx, s.Journalctl, cursor, time.Duration(s.FirstHours*float64(time.Hour)), s.Node)
	})
	readers.Go(func() { newFiles(s.Pods, lines, s.Node, saved).follow(ctx.Done()) })
	for _, one := range stores {
		others.Go(func() { one.send(ctx) })
	}
	others.Go(func() { spool.keep(written, func() int64 { return settled(stores) }, made.reportLost) })
	go lines.turn(written)
	readers.Wait()
	close(written)
	<-lines.stopped
	others.Wait()
	spool.save()
	return nil
}

func (f *figures) reportLost(lost int) {
	f.lost.Add(int64(lost))
	log.Printf("the spool is full: its oldest %d lines are gone, which not every store has got", lost)
}

func settled(stores []*store) int64 {
	least := int64(math.MaxInt64)
	for _, one := range stores {
		least = min(least, one.safe.Load())
	}
	return least
}

// openStores gives the stores of the settings; what was known of others is removed.
func openStores(s settings, spool *spool) ([]*store, error) {
	directory := filepath.Join(s.State, "stores")
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	var made []*store
	for _, one := range s.Stores {
		opened, err := openStore(one, spool, directory, time.Duration(s.SettleSeconds*float64(time.Second)))
		if err != nil {
			return nil, fmt.Errorf("store %s: %w", one.Name, err)
		}
		made = append(made, opened)
		wanted[one.Name+".json"] = true
	}
	entries, err := os.ReadDir(directory)
	for _, entry := range entries {
		if !wanted[entry.Name()] {
			os.Remove(filepath.Join(directory, entry.Name()))
		}
	}
	return made, err
}

// listen answers /ready and /metrics.
func listen(ctx context.Context, address string, f *figures, spool *spool, stores []*store) error {
	pages := http.NewServeMux()
	pages.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if !f.journal.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, "The journal is not being read.")
			return
		}
		fmt.Fprintln(w, "Lines are read.")
	})
	pages.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		first, end, _ := spool.bounds()
		tell(w, "log_collector_read_lines_total", "counter", "Lines that were read.", f.read.Load())
		tell(w, "log_collector_limited_lines_total", "counter", "Lines dropped because their source sent too many.", f.limited.Load())
		tell(w, "log_collector_masked_lines_total", "counter", "Lines that had secrets.", f.masked.Load())
		tell(w, "log_collector_lost_lines_total", "counter", "Lines dropped from a full spool before every store had them.", f.lost.Load())
		tell(w, "log_collector_written_bytes_total", "counter", "Bytes of lines that went to the spool, before they were packed.", f.bytes.Load())
		tell(w, "log_collector_spool_bytes", "gauge", "Size of the spool.", end-first)
		tell(w, "log_collector_spool_limit_bytes", "gauge", "Size that the spool may have.", spool.most)
		reading := int64(0)
		if f.journal.Load() {
			reading = 1
		}
		tell(w, "log_collector_journal_read", "gauge", "Whether the journal is being read.", reading)
		for _, one := range []struct {
			name, kind, help string
			of               func(*store) int64
		}{
			{"log_collector_sent_lines_total", "counter", "Lines that a store took.", func(s *store) int64 { return s.lines.Load() }},
			{"log_collector_sent_bytes_total", "counter", "Bytes of packed batches that a store took.", func(s *store) int64 { return s.bytes.Load() }},
			{"log_collector_resent_lines_total", "counter", "Lines sent again because a store was started anew.", func(s *store) int64 { return s.resent.Load() }},
			{"log_collector_failures_total", "counter", "Batches that a store did not take.", func(s *store) int64 { return s.failures.Load() }},
			{"log_collector_waiting_bytes", "gauge", "Bytes of the spool that a store has not taken yet.", func(s *store) int64 { return max(0, end-s.sentTo.Load()) }},
			{"log_collector_clock_difference_milliseconds", "gauge", "How far a store's clock is ahead of this node's, to the second.", func(s *store) int64 { return s.clock.Load() }},
		} {
			fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", one.name, one.help, one.name, one.kind)
			for _, to := range stores {
				fmt.Fprintf(w, "%s{store=%q} %d\n", one.name, to.settings.Name, one.of(to))
			}
		}
	})
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: pages, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
	go server.Serve(listener)
	context.AfterFunc(ctx, func() { server.Close() })
	return nil
}

func tell(w http.ResponseWriter, name, kind, help string, value int64) {
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s %d\n", name, help, name, kind, name, value)
}
