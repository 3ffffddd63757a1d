// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"log"
	"sync"
	"time"
)

const (
	batchBytes  = 1 << 20 // of a batch before it is packed
	batchLinger = 200 * time.Millisecond
	sourceIdle  = 10 * time.Minute
)

// collector takes lines from all readers, hides secrets, limits sources, and gives batches to the spool.
type collector struct {
	masks   *masks
	limit   limitSettings
	longest int // bytes of a line
	spool   *spool
	figures *figures

	lock    sync.Mutex
	sources map[string]*source
	text    []byte
	lines   int
	changed positions
	since   time.Time // when the batch got its first line
	packed  bytes.Buffer
	packer  *gzip.Writer
	stopped chan struct{}
}

func newCollector(masks *masks, limit limitSettings, longest int, spool *spool, figures *figures) *collector {
	packer, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	return &collector{masks: masks, limit: limit, longest: longest, spool: spool, figures: figures, sources: map[string]*source{}, changed: positions{}, packer: packer, stopped: make(chan struct{})}
}

// source gives what is known of a source, made by the caller's function when it is new.
func (c *collector) source(key string, fresh func() *source) *source {
	c.lock.Lock()
	defer c.lock.Unlock()
	found := c.sources[key]
	if found == nil {
		found = fresh()
		found.key, found.guard = key, &guard{used: time.Now()}
		c.sources[key] = found
	}
	return found
}

// add takes a line, and how far its reader has read with it. It returns once the line is in a batch, which may take as long as the disk is full.
func (c *collector) add(from *source, l line, reader string, read *position) {
	c.lock.Lock()
	defer c.lock.Unlock()
	now := time.Now()
	// A source that was silent for long may have been forgotten.
	c.sources[from.key] = from
	if l.nanoseconds > now.Add(time.Hour).UnixNano() {
		// The store refuses what is far in the future.
		l.nanoseconds = now.UnixNano()
	}
	if c.lines == 0 && len(c.changed) == 0 {
		c.since = now
	}
	if reader != "" {
		c.changed[reader] = read
	}
	c.figures.read.Add(1)
	if !from.guard.take(c.limit, len(l.text), now) {
		c.figures.limited.Add(1)
		return
	}
	c.write(from, l)
	if len(c.text) >= batchBytes {
		c.flush()
	}
}

func (c *collector) write(from *source, l line) {
	text, masked := c.masks.apply(l.text, &from.masked)
	if masked {
		c.figures.masked.Add(1)
	}
	l.text = text
	c.text = encode(c.text, from, l, c.longest)
	c.lines++
}

// moved takes how far a reader has read without a line.
func (c *collector) moved(reader string, read *position) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.lines == 0 && len(c.changed) == 0 {
		c.since = time.Now()
	}
	c.changed[reader] = read
}

// flush gives the batch to the spool; it waits while the disk refuses it.
func (c *collector) flush() {
	if c.lines == 0 && len(c.changed) == 0 {
		return
	}
	c.packed.Reset()
	if c.lines > 0 {
		c.packer.Reset(&c.packed)
		c.packer.Write(c.text)
		c.packer.Close()
	}
	for told := (time.Time{}); ; time.Sleep(time.Second) {
		err := c.spool.add(c.lines, c.changed, c.packed.Bytes())
		if err == nil {
			break
		}
		if time.Since(told) > time.Minute {
			log.Printf("the spool takes nothing, reading waits: %v", err)
			told = time.Now()
		}
	}
	c.figures.bytes.Add(int64(len(c.text)))
	c.text, c.lines, c.changed = c.text[:0], 0, positions{}
	if c.packed.Cap() > 2*batchBytes {
		c.packed = bytes.Buffer{}
	}
}

// turn closes batches that have waited long enough and tells sources what they lost, until told to stop.
func (c *collector) turn(stop <-chan struct{}) {
	defer close(c.stopped)
	tick := time.NewTicker(batchLinger / 2)
	defer tick.Stop()
	swept, told := time.Now(), time.Now()
	for {
		select {
		case <-stop:
			c.lock.Lock()
			c.flush()
			c.lock.Unlock()
			return
		case <-tick.C:
		}
		c.lock.Lock()
		now := time.Now()
		if now.Sub(told) > time.Second {
			c.tell(now)
			told = now
		}
		if now.Sub(c.since) >= batchLinger {
			c.flush()
		}
		if now.Sub(swept) > time.Minute {
			for key, one := range c.sources {
				if now.Sub(one.guard.used) > sourceIdle && one.guard.dropped == 0 {
					delete(c.sources, key)
				}
			}
			if c.lines == 0 {
				c.text = nil
			}
			swept = now
		}
		c.lock.Unlock()
	}
}

// tell says in the log of each source that was limited how much it lost.
func (c *collector) tell(now time.Time) {
	for _, one := range c.sources {
		if dropped := one.guard.due(now); dropped > 0 {
			text := fmt.Sprintf("%d lines were dropped here: more than %.0f lines a second for longer than a burst of %.0f (log_collector)", dropped, c.limit.LinesPerSecond, c.limit.Burst)
			if c.lines == 0 && len(c.changed) == 0 {
				c.since = now
			}
			c.write(one, line{nanoseconds: now.UnixNano(), text: []byte(text), level: "warning"})
		}
	}
}
