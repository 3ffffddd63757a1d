// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"regexp"
)

const hidden = "***"

// mask is a pattern and what takes its place. Patterns without hints are tried on every line.
type mask struct {
	name    string
	pattern *regexp.Regexp
	with    []byte
	hints   [][]byte // in small letters; the pattern matches only lines with one of them
}

type maskSettings struct {
	Name        string `json:"name"`
	Pattern     string `json:"pattern"`     // Go's syntax (RE2)
	Replacement string `json:"replacement"` // ${1} is the first group
}

// value is a text in quotes, which may be quoted themselves, or a word.
const value = `(?:\\+"[^"]*\\+"|"(?:[^"\\]|\\.)*(?:"|$)|'[^']*(?:'|$)|[^\s"',;&}\])\\]+)`

// builtin are the secrets that any program may print.
var builtin = []mask{
	rule("authorization", `(?i)(\bauthorization\\*["']?\s*[:=]\s*\\*["']?)(?:(?:bearer|basic|digest|token|negotiate|apikey)\s+)?[^\s"',;\\]+`, "${1}"+hidden, "authorization"),
	rule("bearer", `(?i)(\bbearer\s+)[a-z0-9._~+/-]{8,}=*`, "${1}"+hidden, "bearer"),
	rule("cookie", `(?i)(\b(?:set-)?cookie\\*["']?\s*[:=]\s*\\*["']?)[^\s"'\\][^"'\\]*`, "${1}"+hidden, "cookie"),
	rule("assignment", `(?i)((?:password|passwd|passphrase|pwd|token|api[_-]?key|access[_-]?key|secret[_-]?key|client[_-]?secret|secret[_-]?id|auth[_-]?key|shared[_-]?secret|encryption[_-]?key)`+
		`\\*["']?\s*(?:=>|[:=])\s*)`+value, "${1}"+hidden,
		"password", "passwd", "passphrase", "pwd", "token", "api", "access", "secret", "authkey", "auth_key", "auth-key", "encryption"),
	rule("option", `(?i)(--?(?:password|passwd|passphrase|token|secret|api-?key)\s+)`+value, "${1}"+hidden, "-pass", "-token", "-secret", "-api"),
	rule("address", `(\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s/:@"']*:)[^\s/@"']+@`, "${1}"+hidden+"@", "://"),
	rule("jwt", `\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)?`, hidden, "eyj"),
	rule("provider", `\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[opsur]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}|\bxox[abprs]-[\w-]{10,}|\bhv[sb]\.[\w-]{20,}`, hidden,
		"akia", "asia", "gh", "glpat-", "xox", "hvs.", "hvb."),
	rule("bootstrap", `\b[a-z0-9]{6}\.[a-z0-9]{16}\b`, hidden, "bootstrap", "kubeadm", "join"),
	rule("key", `(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)`, hidden, "private key-----"),
}

func rule(name, pattern, with string, hints ...string) mask {
	made := mask{name: name, pattern: regexp.MustCompile(pattern), with: []byte(with)}
	for _, hint := range hints {
		made.hints = append(made.hints, []byte(hint))
	}
	return made
}

// masks hides secrets in texts. It keeps buffers: one goroutine at a time.
type masks struct {
	rules []mask
	small []byte
	kept  [2][]byte
}

func newMasks(further []maskSettings) (*masks, error) {
	made := &masks{rules: builtin[:len(builtin):len(builtin)]}
	for place, one := range further {
		pattern, err := regexp.Compile(one.Pattern)
		if err != nil {
			return nil, fmt.Errorf("mask %d (%s): the pattern is not one of Go's: %v; see https://github.com/google/re2/wiki/Syntax", place+1, one.Name, err)
		}
		if pattern.MatchString("") {
			return nil, fmt.Errorf("mask %d (%s): the pattern matches the empty text, which would mask every line", place+1, one.Name)
		}
		with := one.Replacement
		if with == "" {
			with = hidden
		}
		made.rules = append(made.rules, mask{name: one.Name, pattern: pattern, with: []byte(with)})
	}
	return made, nil
}

// keyState is of a source that is printing a private key: how many of its lines may still come.
type keyState int

const keyLines = 200

var (
	keyBegin = []byte("PRIVATE KEY-----")
	keyEnd   = []byte("-----END ")
)

// apply gives the text with its secrets hidden, and whether there were any. What it gives is valid until the next call.
func (m *masks) apply(text []byte, state *keyState) ([]byte, bool) {
	if *state > 0 || keyBody(text) {
		*state--
		if bytes.Contains(text, keyEnd) || !base64ish(text) {
			*state = 0
		} else {
			*state = max(*state, 0)
			return append(m.kept[0][:0], hidden...), true
		}
	}
	if cap(m.small) < len(text) {
		m.small = make([]byte, 0, len(text)+len(text)/4)
	}
	m.small = m.small[:len(text)]
	for at, c := range text {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		m.small[at] = c
	}
	found, turn := false, 0
	for _, one := range m.rules {
		if !one.hinted(m.small) || !one.pattern.Match(text) {
			continue
		}
		if one.name == "key" && !bytes.Contains(text[bytes.Index(text, keyBegin):], keyEnd) {
			*state = keyLines
		}
		into := m.kept[turn][:0]
		last := 0
		for _, at := range one.pattern.FindAllSubmatchIndex(text, -1) {
			into = append(into, text[last:at[0]]...)
			into = one.pattern.Expand(into, one.with, text, at)
			last = at[1]
		}
		m.kept[turn] = append(into, text[last:]...)
		text, found, turn = m.kept[turn], true, 1-turn
	}
	if cap(m.small) > 1<<18 {
		m.small = nil
	}
	return text, found
}

func (m mask) hinted(small []byte) bool {
	for _, hint := range m.hints {
		if bytes.Contains(small, hint) {
			return true
		}
	}
	return len(m.hints) == 0
}

// keyBody tells whether a text is nothing but a full line of a key, which may come without its beginning.
func keyBody(text []byte) bool {
	text = bytes.TrimSpace(text)
	if len(text) != 64 && len(text) != 70 && len(text) != 76 {
		return false
	}
	var small, large, digit bool
	for _, c := range text {
		small, large, digit = small || c >= 'a' && c <= 'z', large || c >= 'A' && c <= 'Z', digit || c >= '0' && c <= '9'
	}
	return small && large && digit && base64ish(text)
}

func base64ish(text []byte) bool {
	text = bytes.TrimSpace(text)
	for _, c := range text {
		if !letter(c) && (c < '0' || c > '9') && c != '+' && c != '/' && c != '=' {
			return false
		}
	}
	return true
}
