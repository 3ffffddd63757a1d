// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const (
	readEvery  = 100 * time.Millisecond // when there was nothing to read
	lookEvery  = time.Second            // for new files
	readAtOnce = 1 << 20                // bytes of one file before the next has its turn
	readBuffer = 128 << 10
	headBytes  = 30 // the time of the first line, to the nanosecond
	closeAfter = 20 * time.Second
)

// logFile is one file of a container in the format of the container runtime interface: `<time> <stdout|stderr> <P|F> <text>`.
// P marks a piece of a line; pieces of both streams may alternate.
type logFile struct {
	key, path string
	container container
	file      *os.File // nil when it was read to its end and is no longer written
	offset    int64    // behind the last whole piece that was read
	head      string
	skipping  bool // within a piece that is longer than the buffer
	grew      time.Time
	parts     [2]part
	sources   [2]*source
	current   bool // the runtime writes to it
	seen      bool
}

// part is a line that has begun.
type part struct {
	start int64 // of its first piece
	open  bool
	text  []byte
	cut   int
}

type container struct{ namespace, pod, uid, name string }

// files reads the logs below /var/log/pods.
type files struct {
	root      string
	collector *collector
	node      nodeSettings
	known     map[string]*logFile
	saved     positions
	buffer    []byte
	troubled  time.Time
}

func newFiles(root string, collector *collector, node nodeSettings, saved positions) *files {
	return &files{root: root, collector: collector, node: node, known: map[string]*logFile{}, saved: saved, buffer: make([]byte, readBuffer)}
}

// follow reads what there is and what comes, until told to stop.
func (f *files) follow(stop <-chan struct{}) {
	for looked := (time.Time{}); ; {
		if now := time.Now(); now.Sub(looked) >= lookEvery {
			f.look(now)
			looked = now
		}
		if f.read(time.Now()) == 0 {
			select {
			case <-stop:
				return
			case <-time.After(readEvery):
			}
			continue
		}
		select {
		case <-stop:
			return
		default:
		}
	}
}

var rotated = regexp.MustCompile(`^[0-9]+\.log(\.[0-9]{8}-[0-9]{6})?$`)

// look finds new files, and forgets those that are gone once they were read to their end.
func (f *files) look(now time.Time) {
	for _, one := range f.known {
		one.seen = false
	}
	pods, err := os.ReadDir(f.root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.trouble(err)
		return
	}
	for _, pod := range pods {
		parts := strings.Split(pod.Name(), "_")
		if len(parts) != 3 || !pod.IsDir() {
			continue
		}
		containers, err := os.ReadDir(filepath.Join(f.root, pod.Name()))
		if err != nil {
			f.trouble(err)
			continue
		}
		for _, one := range containers {
			if one.IsDir() {
				f.lookInto(filepath.Join(f.root, pod.Name(), one.Name()), container{parts[0], parts[1], parts[2], one.Name()}, now)
			}
		}
	}
	for key, one := range f.known {
		if !one.seen && one.file == nil {
			delete(f.known, key)
			f.collector.moved(key, nil)
		} else if !one.seen && now.Sub(one.grew) > closeAfter {
			one.close()
		}
	}
	for key := range f.saved {
		if key != journalReader && f.known[key] == nil {
			f.collector.moved(key, nil)
			delete(f.saved, key)
		}
	}
}

func (f *files) trouble(err error) {
	if !errors.Is(err, fs.ErrNotExist) && time.Since(f.troubled) > time.Minute {
		log.Printf("logs of containers can't be read: %v", err)
		f.troubled = time.Now()
	}
}

func (f *files) lookInto(directory string, of container, now time.Time) {
	entries, err := os.ReadDir(directory)
	if err != nil {
		f.trouble(err)
		return
	}
	for _, entry := range entries {
		if !rotated.MatchString(entry.Name()) {
			continue
		}
		path := filepath.Join(directory, entry.Name())
		// The runtime may write elsewhere and leave a link here.
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		key := identity(info)
		one := f.known[key]
		if one == nil {
			one = &logFile{key: key, path: path, container: of, grew: now}
			if one.open() != nil {
				continue
			}
			if saved := f.saved[key]; saved != nil {
				if saved.Head != "" && saved.Head == one.begin() {
					one.offset, one.head = saved.Offset, saved.Head
				}
				delete(f.saved, key)
			}
			f.known[key] = one
		}
		one.seen, one.path, one.current = true, path, strings.HasSuffix(path, ".log")
		if one.file == nil && info.Size() > one.offset && one.open() == nil {
			one.grew = now
		}
	}
}

func identity(info fs.FileInfo) string {
	stat := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}

func (l *logFile) open() (err error) {
	l.file, err = os.Open(l.path)
	return err
}

func (l *logFile) close() {
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
}

// begin is how the file begins; empty while it has no whole time.
func (l *logFile) begin() string {
	var head [headBytes]byte
	if n, _ := l.file.ReadAt(head[:], 0); n < headBytes {
		return ""
	}
	return string(head[:])
}

// read reads some of every file, and gives how many bytes.
func (f *files) read(now time.Time) (total int64) {
	for _, one := range f.known {
		if one.file == nil {
			continue
		}
		was := one.offset
		for one.offset-was < readAtOnce {
			n, err := one.file.ReadAt(f.buffer, one.offset)
			if err != nil && err != io.EOF {
				f.trouble(err)
				one.close()
				break
			}
			used := f.take(one, f.buffer[:n])
			if used == 0 {
				break
			}
		}
		read := one.offset - was
		if read > 0 {
			one.grew = now
			total += read
			continue
		}
		if idle := now.Sub(one.grew); idle > closeAfter {
			info, err := one.file.Stat()
			if err == nil && info.Size() < one.offset {
				log.Printf("%s was cut short: it is read from its beginning", one.path)
				one.offset, one.head, one.parts = 0, "", [2]part{}
			}
			if !one.current {
				one.close()
			}
			one.grew = now
		}
	}
	return total
}

// take reads the whole pieces at the beginning of a text that lies at the file's offset, and gives their length.
func (f *files) take(one *logFile, text []byte) (used int) {
	for used < len(text) {
		end := bytes.IndexByte(text[used:], '\n')
		if end < 0 {
			if len(text)-used < len(f.buffer) {
				break
			}
			// A piece that is longer than the buffer: its beginning counts, the rest is left out.
			if !one.skipping {
				f.piece(one, text[used:], used)
			}
			one.skipping = true
			one.offset += int64(len(text) - used)
			return len(text)
		}
		piece := text[used : used+end]
		if one.skipping {
			one.skipping = false
			one.offset += int64(end + 1)
		} else {
			one.offset += int64(end + 1)
			f.piece(one, piece, end+1)
		}
		used += end + 1
	}
	return used
}

// piece takes one piece, behind which the file's offset already is.
func (f *files) piece(one *logFile, text []byte, length int) {
	if one.head == "" {
		one.head = one.begin()
	}
	when, stream, partial, rest, ok := parse(text)
	if !ok {
		// Not a line of a container runtime: it is kept as it is.
		when, stream, partial, rest = time.Now().UnixNano(), 1, false, text
	}
	p := &one.parts[stream]
	if partial && !p.open {
		p.open, p.start = true, one.offset-int64(length)
	}
	from := f.source(one, stream)
	if partial || p.open {
		fits := min(len(rest), f.collector.longest-len(p.text))
		p.text = append(p.text, rest[:fits]...)
		p.cut += len(rest) - fits
		if partial {
			return
		}
		rest = p.text
	}
	cut := p.cut
	p.open, p.cut = false, 0
	// After a restart a line that has begun is read from its beginning.
	safe := one.offset
	for _, other := range one.parts {
		if other.open {
			safe = min(safe, other.start)
		}
	}
	f.collector.add(from, line{nanoseconds: when, text: rest, cut: cut}, one.key, &position{Offset: safe, Head: one.head})
	if cap(p.text) > readBuffer {
		p.text = nil
	} else {
		p.text = p.text[:0]
	}
}

var streams = [...]string{"stdout", "stderr"}

func (f *files) source(one *logFile, stream int) *source {
	if found := one.sources[stream]; found != nil {
		return found
	}
	of := one.container
	key := "pod/" + of.namespace + "/" + of.pod + "/" + of.name + "/" + streams[stream]
	one.sources[stream] = f.collector.source(key, func() *source {
		head := field(f.node.head(), "namespace", of.namespace)
		head = field(field(field(head, "pod", of.pod), "container", of.name), "stream", streams[stream])
		return &source{head: head, level: "info"}
	})
	return one.sources[stream]
}

// parse reads a piece of the container runtime interface's format. Only whether a line goes on is known of its tags.
func parse(text []byte) (when int64, stream int, partial bool, rest []byte, ok bool) {
	stamp, text, ok1 := bytes.Cut(text, []byte{' '})
	name, text, ok2 := bytes.Cut(text, []byte{' '})
	tags, rest, ok3 := bytes.Cut(text, []byte{' '})
	if !ok1 || !ok2 || !ok3 {
		// An empty line may come without its last space.
		if !ok1 || !ok2 || (string(text) != "F" && string(text) != "P") {
			return 0, 0, false, nil, false
		}
		tags, rest = text, nil
	}
	switch string(name) {
	case "stdout":
	case "stderr":
		stream = 1
	default:
		return 0, 0, false, nil, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return 0, 0, false, nil, false
	}
	return at.UnixNano(), stream, len(tags) > 0 && tags[0] == 'P', rest, true
}
