// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"
)

// instanceHeader tells which process of a store answers. Another one than before may not have what that one took last: the store writes to its disk some seconds after it has answered.
const instanceHeader = "Ashlar-Instance"

type storeSettings struct {
	Name        string `json:"name"`    // of the node, which its certificate bears
	Address     string `json:"address"` // address:port
	Authority   string `json:"authority"`
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
}

// store sends the spool to one store.
type store struct {
	settings storeSettings
	spool    *spool
	settle   time.Duration
	file     string
	client   *http.Client
	address  string
	records  holder
	buffer   []byte
	row      int // failures in a row

	state  storeState
	flying []flight // taken by the store, in order, and perhaps not on its disk yet
	again  []flight // to be sent again
	safe   atomic.Int64
	sentTo atomic.Int64

	failing                                  atomic.Bool
	lines, bytes, failures, restarts, resent atomic.Int64
	clock                                    atomic.Int64 // milliseconds that its clock is ahead of ours
}

// storeState is what of the sending outlives this process.
type storeState struct {
	Sent     int64    `json:"sent"`    // place behind the last record that was taken
	Settled  int64    `json:"settled"` // place behind the last one that is on the store's disk
	Flying   []flight `json:"flying"`
	Again    []flight `json:"again"`
	Instance string   `json:"instance"`
}

// flight is a piece of the spool that a store took at about the same time.
type flight struct {
	Start int64     `json:"start"`
	End   int64     `json:"end"`
	Taken time.Time `json:"taken"` // when it took the last of it
}

// together is how long pieces that follow each other are one.
const together = 500 * time.Millisecond

// took adds a piece to those that the store has taken.
func took(list []flight, one flight) []flight {
	if last := len(list) - 1; last >= 0 && list[last].End == one.Start && one.Taken.Truncate(together).Equal(list[last].Taken.Truncate(together)) {
		list[last].End, list[last].Taken = one.End, one.Taken
		return list
	}
	return append(list, one)
}

const (
	sendTimeout = 30 * time.Second
	retryFirst  = 100 * time.Millisecond
	retryMost   = 2 * time.Second
)

// openStore reads how far an earlier run has sent.
func openStore(settings storeSettings, spool *spool, directory string, settle time.Duration) (*store, error) {
	authority, err := os.ReadFile(settings.Authority)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("%s has no certificate", settings.Authority)
	}
	s := &store{settings: settings, spool: spool, settle: settle, file: filepath.Join(directory, settings.Name+".json"), records: holder{spool: spool}, address: "https://" + settings.Address}
	s.client = &http.Client{
		Timeout: sendTimeout,
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: 3 * time.Second, KeepAlive: 5 * time.Second}).DialContext,
			TLSHandshakeTimeout:   5 * time.Second,
			MaxIdleConnsPerHost:   1,
			IdleConnTimeout:       time.Minute,
			ResponseHeaderTimeout: sendTimeout,
			WriteBufferSize:       16 << 10,
			ReadBufferSize:        4 << 10,
			TLSClientConfig: &tls.Config{
				MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: settings.Name,
				// Read at each handshake, so that a renewed one is used without a restart.
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					pair, err := tls.LoadX509KeyPair(settings.Certificate, settings.Key)
					return &pair, err
				},
			},
		},
	}
	first, end, _ := spool.bounds()
	s.state = storeState{Sent: first, Settled: first}
	text, err := os.ReadFile(s.file)
	if err == nil {
		if err := json.Unmarshal(text, &s.state); err != nil {
			log.Printf("%s is damaged (%v): everything in the spool is sent again", s.file, err)
			s.state = storeState{Sent: first, Settled: first}
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	s.state.Sent = min(max(s.state.Sent, first), end)
	s.state.Settled = min(max(s.state.Settled, first), s.state.Sent)
	s.flying, s.again = s.state.Flying, s.state.Again
	s.safe.Store(s.state.Settled)
	s.sentTo.Store(s.state.Sent)
	return s, nil
}

// send sends what is in the spool and what is added, until the context ends.
func (s *store) send(ctx context.Context) {
	defer s.records.close()
	var refused int
	for ctx.Err() == nil {
		first, end, more := s.spool.bounds()
		s.skip(first)
		s.sweep()
		start, redo := s.state.Sent, false
		if len(s.again) > 0 {
			start, redo = s.again[0].Start, true
		} else if start >= end {
			wait := 5 * time.Second
			if len(s.flying) > 0 {
				wait = time.Second
			}
			select {
			case <-ctx.Done():
			case <-more:
			case <-time.After(wait):
				s.buffer = nil
				if len(s.flying) > 0 && time.Since(s.flying[0].Taken) > s.settle {
					s.ask(ctx)
				}
			}
			continue
		}
		told, batch, next, err := s.records.get(start, s.buffer)
		if err != nil {
			log.Printf("%s: the spool can't be read at %d: %v", s.settings.Name, start, err)
			pause(ctx, time.Second)
			continue
		}
		if cap(batch) > cap(s.buffer) {
			s.buffer = batch[:0]
		}
		if told.Lines > 0 {
			instance, err := s.post(ctx, batch)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				refused = s.failed(ctx, err, refused)
				if !errors.Is(err, errRefused) || refused < 5 {
					continue
				}
				log.Printf("%s: %d lines are left out, which it has refused %d times", s.settings.Name, told.Lines, refused)
			} else {
				if s.failing.Swap(false) {
					log.Printf("%s takes lines again", s.settings.Name)
				}
				s.row = 0
				s.met(instance)
				s.lines.Add(int64(told.Lines))
				s.bytes.Add(int64(len(batch)))
				if redo {
					s.resent.Add(int64(told.Lines))
				}
			}
			refused = 0
		}
		taken := flight{start, next, time.Now()}
		if redo {
			s.consume(taken)
		} else {
			s.state.Sent = next
			s.sentTo.Store(next)
		}
		s.flying = took(s.flying, taken)
		s.sweep()
		s.save()
	}
}

// consume takes a record off what is to be sent again.
func (s *store) consume(sent flight) {
	for place := range s.again {
		if s.again[place].Start == sent.Start {
			if s.again[place].Start = sent.End; sent.End >= s.again[place].End {
				s.again = slices.Delete(s.again, place, place+1)
			}
			return
		}
	}
}

// skip goes to the first record that is there, when others had to make room.
func (s *store) skip(first int64) {
	s.state.Sent = max(s.state.Sent, first)
	for len(s.again) > 0 && s.again[0].Start < first {
		if s.again[0].End <= first {
			s.again = s.again[1:]
		} else {
			s.again[0].Start = first
		}
	}
	for len(s.flying) > 0 && s.flying[0].End <= first {
		s.flying = s.flying[1:]
	}
}

// met takes which process of the store has answered. What another one took before and may not have written is sent again.
func (s *store) met(instance string) {
	if s.state.Instance != instance && s.state.Instance != "" && len(s.flying) > 0 {
		log.Printf("%s was started anew: what it took in its last seconds is sent again", s.settings.Name)
		s.restarts.Add(1)
		s.again = append(s.flying, s.again...)
		s.flying = nil
	}
	s.state.Instance = instance
	now := time.Now()
	for len(s.flying) > 0 && now.Sub(s.flying[0].Taken) > s.settle {
		s.flying = s.flying[1:]
	}
}

// sweep notes up to where everything is on the store's disk.
func (s *store) sweep() {
	settled := s.state.Sent
	for _, one := range s.flying {
		settled = min(settled, one.Start)
	}
	for _, one := range s.again {
		settled = min(settled, one.Start)
	}
	if settled != s.state.Settled {
		s.state.Settled = settled
		s.safe.Store(settled)
		s.save()
	}
}

// save writes the state so that it outlives this process; after a loss of power some lines are sent twice.
func (s *store) save() {
	s.state.Flying, s.state.Again = s.flying, s.again
	text, err := json.Marshal(s.state)
	if err == nil {
		if err = os.WriteFile(s.file+".new", text, 0o600); err == nil {
			err = os.Rename(s.file+".new", s.file)
		}
	}
	if err != nil {
		log.Printf("%s: how far it got can't be written: %v", s.settings.Name, err)
	}
}

var errRefused = errors.New("refused")

// failed waits a while after a failure, longer after each.
func (s *store) failed(ctx context.Context, err error, refused int) int {
	s.failures.Add(1)
	if !s.failing.Swap(true) {
		log.Printf("%s takes nothing, lines wait in the spool: %v", s.settings.Name, err)
	}
	if errors.Is(err, errRefused) {
		pause(ctx, retryFirst<<min(refused, 5))
		return refused + 1
	}
	// A store that answers and yet takes nothing, its disk being full, is not asked in haste.
	wait := retryFirst << min(s.row, 4)
	s.row++
	for ctx.Err() == nil {
		pause(ctx, wait)
		if _, err := s.look(ctx); err == nil {
			break
		}
		wait = min(2*wait, retryMost)
	}
	return 0
}

func pause(ctx context.Context, long time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(long):
	}
}

const streamFields = "site,node,component,namespace,pod,container"

// post gives a batch to the store and tells which process took it.
func (s *store) post(ctx context.Context, batch []byte) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.address+"/insert/jsonline?_stream_fields="+streamFields, bytes.NewReader(batch))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Encoding", "gzip")
	request.Header.Set("Content-Type", "application/stream+json")
	return s.do(request)
}

// look asks whether the store is there, and which process it is.
func (s *store) look(ctx context.Context) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.address+"/health", nil)
	if err != nil {
		return "", err
	}
	return s.do(request)
}

// ask settles what was taken long enough ago, while nothing else is sent.
func (s *store) ask(ctx context.Context) {
	if instance, err := s.look(ctx); err == nil {
		s.met(instance)
	}
}

func (s *store) do(request *http.Request) (string, error) {
	answer, err := s.client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 300))
	io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<16))
	if when, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
		s.clock.Store(when.Sub(time.Now().Truncate(time.Second)).Milliseconds())
	}
	switch code := answer.StatusCode; {
	case code < 300:
		return answer.Header.Get(instanceHeader), nil
	case code == 400 || code == 413 || code == 422:
		return "", fmt.Errorf("%w: %s: %s", errRefused, answer.Status, bytes.TrimSpace(text))
	default:
		return "", fmt.Errorf("%s: %s", answer.Status, bytes.TrimSpace(text))
	}
}
