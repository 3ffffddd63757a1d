// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const journalReader = "journal"

// entry is what is used of an entry of the journal.
type entry struct {
	cursor, unit, managed, identifier, transport, container string
	microseconds                                            int64
	priority                                                int
	message                                                 []byte
	cut                                                     int
}

var journalFields = "MESSAGE,PRIORITY,_SYSTEMD_UNIT,UNIT,SYSLOG_IDENTIFIER,_TRANSPORT"

// followJournal reads the journal from where the last run ended, until the context does. journalctl is started anew when it ends.
func (c *collector) followJournal(ctx context.Context, program string, cursor string, first time.Duration, node nodeSettings) {
	for ctx.Err() == nil {
		read, err := c.readJournal(ctx, program, &cursor, first, node)
		if ctx.Err() != nil {
			return
		}
		c.figures.journal.Store(false)
		log.Printf("journalctl ended after %d entries and is started again: %v", read, err)
		if read == 0 && strings.Contains(err.Error(), "cursor") {
			log.Printf("the journal does not know the cursor %q: it is read from %s ago on", cursor, first)
			cursor = ""
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (c *collector) readJournal(ctx context.Context, program string, cursor *string, first time.Duration, node nodeSettings) (read int, err error) {
	arguments := []string{"--quiet", "--follow", "--no-tail", "--all", "--output=export", "--output-fields=" + journalFields}
	if *cursor != "" {
		arguments = append(arguments, "--after-cursor="+*cursor)
	} else {
		arguments = append(arguments, fmt.Sprintf("--since=@%d", time.Now().Add(-first).Unix()))
	}
	command := exec.CommandContext(ctx, program, arguments...)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said tail
	command.Stderr = &said
	out, err := command.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := command.Start(); err != nil {
		return 0, err
	}
	c.figures.journal.Store(true)
	reader := bufio.NewReaderSize(out, 1<<16)
	var one entry
	for {
		if err = readEntry(reader, &one, c.longest); err != nil {
			break
		}
		read++
		*cursor = one.cursor
		from := c.source("unit/"+one.key(), func() *source { return &source{head: one.head(node)} })
		// What a unit prints has the priority of its output: its own words tell more.
		level := ""
		if one.priority >= 0 && (one.transport != "stdout" || one.priority != 6 || levelOf(one.message) == "") {
			level = priorities[one.priority]
		}
		more := field(nil, "unit", one.label())
		if one.identifier != "" && !strings.HasPrefix(one.label(), one.identifier+".") {
			more = field(more, "identifier", one.identifier)
		}
		more = field(more, "stream", one.transport)
		c.add(from, line{nanoseconds: one.microseconds * 1000, text: one.message, level: level, more: more, cut: one.cut}, journalReader, &position{Cursor: one.cursor})
	}
	command.Process.Kill()
	command.Wait()
	if text := said.String(); text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	return read, err
}

// label is the unit that an entry is about: what systemd says of a unit is that unit's.
func (e *entry) label() string {
	if e.managed != "" && (e.unit == "" || e.unit == "init.scope") {
		return e.managed
	}
	return e.unit
}

// key names the source of an entry; units of which there is a new one each time are one source.
func (e *entry) key() string {
	if unit := e.label(); unit != "" {
		return general(unit)
	}
	if e.transport == "kernel" {
		return "kernel"
	}
	if e.identifier != "" {
		return general(e.identifier)
	}
	return "host"
}

var passing = regexp.MustCompile(`^(?:(session|run|cri-containerd|crio|docker)-|(.+?)@)[^.]*`)

// general is the name of a unit without what is different each time it starts.
func general(unit string) string {
	if parts := passing.FindStringSubmatch(unit); parts != nil && strings.Contains(unit, ".") {
		_, kind, _ := strings.Cut(unit[len(parts[0]):], ".")
		if at := strings.LastIndexByte(unit, '.'); at > 0 {
			kind = unit[at+1:]
		}
		if parts[2] != "" {
			return parts[2] + "@." + kind
		}
		return parts[1] + "." + kind
	}
	return unit
}

func (e *entry) head(node nodeSettings) []byte {
	key := e.key()
	component := node.component(e.label())
	if component == "" {
		component = node.component(key)
	}
	if component == "" {
		component = key
	}
	return field(node.head(), "component", component)
}

// component is whose unit it is; x-y.timer is that of x.service, if it is nobody's else.
func (n nodeSettings) component(unit string) string {
	at := strings.LastIndexByte(unit, '.')
	for found := n.Units[unit]; at > 0; at = strings.LastIndexByte(unit[:at], '-') {
		if found == "" {
			found = n.Units[unit[:at]+".service"]
		}
		if found != "" {
			return found
		}
	}
	return ""
}

// readEntry reads one entry of the journal's export format, systemd.io/JOURNAL_EXPORT_FORMATS. Of a message longer than most the beginning is kept.
func readEntry(from *bufio.Reader, e *entry, most int) error {
	*e = entry{priority: -1, message: e.message[:0]}
	if cap(e.message) > 1<<18 {
		e.message = nil
	}
	var small []byte
	for empty := true; ; {
		start, err := from.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			return err
		}
		if len(start) == 1 {
			if empty {
				continue
			}
			return nil
		}
		empty = false
		name, rest, text := bytes.Cut(start, []byte{'='})
		key := string(name)
		var into *[]byte
		switch key {
		case "MESSAGE":
			into = &e.message
		default:
			small = small[:0]
			into = &small
		}
		room := 1 << 12
		if into == &e.message {
			room = most
		}
		cut := 0
		take := func(part []byte) {
			fits := min(len(part), room-len(*into))
			*into = append(*into, part[:fits]...)
			cut += len(part) - fits
		}
		if text {
			take(bytes.TrimSuffix(rest, []byte{'\n'}))
			for err == bufio.ErrBufferFull {
				start, err = from.ReadSlice('\n')
				if err != nil && err != bufio.ErrBufferFull {
					return err
				}
				take(bytes.TrimSuffix(start, []byte{'\n'}))
			}
		} else {
			if err == bufio.ErrBufferFull {
				return fmt.Errorf("not the journal's export format")
			}
			key = string(bytes.TrimSuffix(name, []byte{'\n'}))
			if key == "MESSAGE" {
				into, room = &e.message, most
			}
			var size [8]byte
			if _, err := io.ReadFull(from, size[:]); err != nil {
				return err
			}
			for left := binary.LittleEndian.Uint64(size[:]); left > 0; {
				part, err := from.Peek(int(min(left, 1<<15)))
				if err != nil {
					return err
				}
				take(part)
				from.Discard(len(part))
				left -= uint64(len(part))
			}
			if _, err := from.Discard(1); err != nil {
				return err
			}
		}
		e.set(key, *into, cut)
	}
}

func (e *entry) set(key string, text []byte, cut int) {
	switch key {
	case "__CURSOR":
		e.cursor = string(text)
	case "__REALTIME_TIMESTAMP":
		e.microseconds, _ = strconv.ParseInt(string(text), 10, 64)
	case "MESSAGE":
		e.cut = cut
	case "PRIORITY":
		if number, err := strconv.Atoi(string(text)); err == nil && number >= 0 && number < len(priorities) {
			e.priority = number
		}
	case "_SYSTEMD_UNIT":
		e.unit = string(text)
	case "UNIT":
		e.managed = string(text)
	case "SYSLOG_IDENTIFIER":
		e.identifier = string(text)
	case "_TRANSPORT":
		e.transport = string(text)
	}
}

// tail keeps the last words of a program.
type tail struct{ text []byte }

func (t *tail) Write(more []byte) (int, error) {
	t.text = append(t.text, more...)
	if len(t.text) > 500 {
		t.text = append(t.text[:0], t.text[len(t.text)-500:]...)
	}
	return len(more), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(t.text)) }
