// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"
)

// source is what all lines of one origin have in common.
type source struct {
	key    string // what limits and states are kept by
	head   []byte // JSON of the common fields, from after the time to before the message
	level  string // level of lines that do not say one; empty when the journal says it
	guard  *guard
	masked keyState
}

// line is one log line on its way into a batch. Its bytes are the caller's and used only until the call returns.
type line struct {
	nanoseconds int64 // since 1970, by the clock of the host
	text        []byte
	level       string // empty: found in the text, or the source's
	more        []byte // JSON of further fields, each beginning with a comma
	cut         int    // bytes that were already left out
}

// field appends `,"name":"value"`, and nothing when there is no value.
func field(to []byte, name, value string) []byte {
	if value == "" {
		return to
	}
	to = append(to, ',', '"')
	to = append(to, name...)
	to = append(to, '"', ':', '"')
	to, _ = appendText(to, []byte(value), len(value))
	return append(to, '"')
}

// encode appends the line as one line of JSON. Of a text longer than most bytes the beginning is kept.
func encode(to []byte, from *source, l line, most int) []byte {
	to = append(to, `{"_time":"`...)
	to = strconv.AppendInt(to, l.nanoseconds, 10)
	to = append(to, '"')
	to = append(to, from.head...)
	to = append(to, l.more...)
	level := l.level
	if level == "" {
		level = levelOf(l.text)
	}
	if level == "" {
		level = from.level
	}
	to = field(to, "level", level)
	to = append(to, `,"_msg":"`...)
	mark := len(to)
	to, read := appendText(to, l.text, most)
	if len(to) == mark {
		// The store takes no empty message.
		to = append(to, ' ')
	}
	to = append(to, '"')
	if cut := l.cut + len(l.text) - read; cut > 0 {
		to = append(to, `,"cut_bytes":"`...)
		to = strconv.AppendInt(to, int64(cut), 10)
		to = append(to, '"')
	}
	return append(to, '}', '\n')
}

const replacement = "\ufffd"

// appendText appends at most so many bytes of a text as the inside of a JSON string, and tells how many of its bytes it took. Colours of terminals are left out; each run of bytes
// that are not text becomes one replacement character, so that binary data stays small.
func appendText(to, text []byte, most int) ([]byte, int) {
	written, at, odd := 0, 0, false
	for at < len(text) && written < most {
		// What needs no care goes by in one piece.
		end := at
		for end < len(text) && written+end-at < most && plain[text[end]] {
			end++
		}
		if end > at {
			to = append(to, text[at:end]...)
			written += end - at
			at, odd = end, false
			continue
		}
		c := text[at]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(text[at:])
			if r != utf8.RuneError || size > 1 {
				to = append(to, text[at:at+size]...)
				written += size
				at, odd = at+size, false
				continue
			}
		}
		switch {
		case c == '"' || c == '\\':
			to = append(to, '\\', c)
		case c == '\n':
			to = append(to, '\\', 'n')
		case c == '\t':
			to = append(to, '\\', 't')
		case c == '\r':
			at++
			continue
		case c == 0x1b && at+1 < len(text) && text[at+1] == '[':
			at += 2
			for at < len(text) && (text[at] < 0x40 || text[at] > 0x7e) {
				at++
			}
			at = min(at+1, len(text))
			continue
		default:
			if !odd {
				to = append(to, replacement...)
				written += len(replacement)
			}
			at, odd = at+1, true
			continue
		}
		written++
		at, odd = at+1, false
	}
	return to, at
}

var plain = func() (table [256]bool) {
	for c := 0x20; c < 0x7f; c++ {
		table[c] = c != '"' && c != '\\'
	}
	return
}()

// priorities are the journal's, as syslog numbers them.
var priorities = [...]string{"emerg", "alert", "crit", "error", "warning", "notice", "info", "debug"}

var levels = map[string]string{
	"emerg": "emerg", "panic": "emerg", "alert": "alert", "crit": "crit", "critical": "crit", "fatal": "crit", "err": "error", "error": "error", "severe": "error",
	"warn": "warning", "warning": "warning", "notice": "notice", "info": "info", "information": "info", "debug": "debug", "trace": "debug",
}

var levelKeys = [][]byte{[]byte(`"level":"`), []byte(`"severity":"`), []byte(`"level": "`), []byte("level="), []byte("lvl=")}

// levelOf finds the level that the beginning of a text names, as klog, JSON, logfmt and plain words do; empty if it names none.
func levelOf(text []byte) string {
	if len(text) > 6 && text[5] == ' ' && digits(text[1:5]) {
		switch text[0] {
		case 'I':
			return "info"
		case 'W':
			return "warning"
		case 'E':
			return "error"
		case 'F':
			return "crit"
		}
	}
	start := text[:min(len(text), 256)]
	for _, key := range levelKeys {
		if at := bytes.Index(start, key); at >= 0 {
			if found, ok := levels[strings.ToLower(string(word(start[at+len(key):])))]; ok {
				return found
			}
		}
	}
	// A word in capitals, or in brackets, among the first.
	start = start[:min(len(start), 80)]
	for at := 0; at < len(start); {
		if !letter(start[at]) {
			at++
			continue
		}
		found := word(start[at:])
		if len(found) >= 3 && len(found) <= 11 && (capitals(found) || at > 0 && start[at-1] == '[' && at+len(found) < len(start) && start[at+len(found)] == ']') {
			if name, ok := levels[strings.ToLower(string(found))]; ok {
				return name
			}
		}
		at += len(found)
	}
	return ""
}

func word(text []byte) []byte {
	if len(text) > 0 && text[0] == '"' {
		text = text[1:]
	}
	end := 0
	for end < len(text) && letter(text[end]) {
		end++
	}
	return text[:end]
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func capitals(text []byte) bool {
	for _, c := range text {
		if c < 'A' || c > 'Z' {
			return false
		}
	}
	return true
}

func digits(text []byte) bool {
	for _, c := range text {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
