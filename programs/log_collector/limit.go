// SPDX-License-Identifier: Apache-2.0

package main

import "time"

// guard is how many lines a source may still send: a bucket that fills by rate lines a second up to burst.
type guard struct {
	tokens  float64
	filled  time.Time
	used    time.Time
	dropped int64 // since it was last told
	told    time.Time
}

type limitSettings struct {
	LinesPerSecond float64 `json:"lines_per_second"`
	Burst          float64 `json:"burst_lines"`
}

// lineBytes is how much of a line counts as one.
const lineBytes = 4096

// toldEvery is how often a source that is limited is told so, at most.
const toldEvery = 10 * time.Second

// take tells whether a line of so many bytes may pass.
func (g *guard) take(limit limitSettings, bytes int, now time.Time) bool {
	if g.filled.IsZero() {
		g.tokens, g.told = limit.Burst, now
	} else {
		g.tokens = min(limit.Burst, g.tokens+now.Sub(g.filled).Seconds()*limit.LinesPerSecond)
	}
	g.filled, g.used = now, now
	cost := float64(1 + bytes/lineBytes)
	if g.tokens < cost {
		g.dropped++
		return false
	}
	g.tokens -= cost
	return true
}

// due tells how many lines were dropped when it is time to say so.
func (g *guard) due(now time.Time) int64 {
	if g.dropped == 0 || now.Sub(g.told) < toldEvery {
		return 0
	}
	dropped := g.dropped
	g.dropped, g.told = 0, now
	return dropped
}
