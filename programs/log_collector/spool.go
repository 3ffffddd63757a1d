// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The spool is one row of records that all stores are sent from, each at its own pace, in files named by the place of their first byte in that row.
// A record is a batch as it is sent, and how far its sources were read with it: both are written at once, so that after kill -9 reading goes on exactly
// behind what is in the spool. The first record of a file has the positions of all sources.
//
//	magic u32 | length of the description u32 | length of the batch u32 | CRC-32C of both u32 | description (JSON) | batch (gzip)

const (
	magic        = 0x41534c31
	headerLength = 16
	fileLength   = 8 << 20
	mostRecord   = 64 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// positions are how far sources were read: the journal's cursor under "journal", files under device:inode. null forgets one.
type positions map[string]*position

type position struct {
	Cursor string `json:"cursor,omitempty"`
	Offset int64  `json:"offset,omitempty"`
	Head   string `json:"head,omitempty"` // how the file begins: another with its inode is another file
}

type description struct {
	Lines     int       `json:"lines"`
	Whole     bool      `json:"whole,omitempty"` // positions are those of all sources
	Positions positions `json:"positions,omitempty"`
}

type spool struct {
	directory string
	most      int64 // bytes

	lock    sync.Mutex
	files   []int64 // places of the first bytes, in order
	end     int64   // place behind the last record
	file    *os.File
	current positions
	grown   chan struct{} // closed when a record is added
	unsaved bool
}

func (s *spool) path(start int64) string {
	return filepath.Join(s.directory, fmt.Sprintf("%016x.spool", start))
}

// openSpool reads what an earlier run left. A record that was being written when it ended is cut off: its sources are read again.
func openSpool(directory string, most int64) (*spool, error) {
	s := &spool{directory: directory, most: most, current: positions{}, grown: make(chan struct{})}
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(directory)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), ".spool")
		start, err := strconv.ParseInt(name, 16, 64)
		if ok && err == nil {
			s.files = append(s.files, start)
		}
	}
	slices.Sort(s.files)
	// The positions are in the last file that has a whole record: a new one may have got none.
	for place := len(s.files) - 1; place >= 0; place-- {
		end, found, err := s.replay(s.files[place])
		if err != nil {
			return nil, err
		}
		if place == len(s.files)-1 {
			s.end = end
			if err := os.Truncate(s.path(s.files[place]), end-s.files[place]); err != nil {
				return nil, err
			}
		}
		if found {
			break
		}
	}
	return s, nil
}

// replay takes the positions of a file's records, and gives the place behind its last whole one.
func (s *spool) replay(start int64) (end int64, found bool, err error) {
	file, err := os.Open(s.path(start))
	if err != nil {
		return 0, false, err
	}
	defer file.Close()
	end = start
	for {
		told, _, length, err := readRecord(file, end-start, nil)
		if err != nil {
			return end, found, nil
		}
		if told.Whole {
			s.current = positions{}
		}
		s.merge(told.Positions)
		end, found = end+length, true
	}
}

func (s *spool) merge(changed positions) {
	for key, one := range changed {
		if one == nil {
			delete(s.current, key)
		} else {
			s.current[key] = one
		}
	}
}

// read gives the positions that everything in the spool amounts to.
func (s *spool) read() positions {
	s.lock.Lock()
	defer s.lock.Unlock()
	return maps.Clone(s.current)
}

// bounds are the places of the first byte and behind the last one, and a channel that is closed when there is more.
func (s *spool) bounds() (first, end int64, more <-chan struct{}) {
	s.lock.Lock()
	defer s.lock.Unlock()
	first = s.end
	if len(s.files) > 0 {
		first = s.files[0]
	}
	return first, s.end, s.grown
}

// add writes one record. A batch that can't be written is tried again by the caller: what of it is in the file is overwritten.
func (s *spool) add(lines int, changed positions, batch []byte) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.file == nil || s.end-s.files[len(s.files)-1] >= fileLength {
		if err := s.next(); err != nil {
			return err
		}
	}
	start := s.files[len(s.files)-1]
	told := description{Lines: lines, Positions: changed}
	if s.end == start {
		all := maps.Clone(s.current)
		for key, one := range changed {
			if one == nil {
				delete(all, key)
			} else {
				all[key] = one
			}
		}
		told.Whole, told.Positions = true, all
	}
	text, err := json.Marshal(told)
	if err != nil {
		return err
	}
	record := make([]byte, headerLength, headerLength+len(text)+len(batch))
	record = append(append(record, text...), batch...)
	binary.LittleEndian.PutUint32(record[0:], magic)
	binary.LittleEndian.PutUint32(record[4:], uint32(len(text)))
	binary.LittleEndian.PutUint32(record[8:], uint32(len(batch)))
	binary.LittleEndian.PutUint32(record[12:], crc32.Checksum(record[headerLength:], castagnoli))
	if _, err := s.file.WriteAt(record, s.end-start); err != nil {
		return err
	}
	s.merge(changed)
	s.end += int64(len(record))
	s.unsaved = true
	close(s.grown)
	s.grown = make(chan struct{})
	return nil
}

// next opens the file that is written to from now on.
func (s *spool) next() error {
	if s.file == nil && len(s.files) > 0 && s.end-s.files[len(s.files)-1] < fileLength {
		file, err := os.OpenFile(s.path(s.files[len(s.files)-1]), os.O_RDWR, 0o600)
		s.file = file
		return err
	}
	file, err := os.OpenFile(s.path(s.end), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if s.file != nil {
		if err := s.file.Sync(); err != nil {
			log.Printf("the spool: %v", err)
		}
		s.file.Close()
	}
	s.file = file
	s.files = append(s.files, s.end)
	return nil
}

// save has the disk keep what was written, which kill -9 does not need but a machine without power does.
func (s *spool) save() {
	s.lock.Lock()
	file, unsaved := s.file, s.unsaved
	s.unsaved = false
	s.lock.Unlock()
	if file != nil && unsaved {
		if err := file.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
			log.Printf("the spool: %v", err)
		}
	}
}

// clear removes files that lie wholly before a place, and the oldest ones as long as the spool is larger than it may be.
// It gives how many lines those had that not every store has got.
func (s *spool) clear(before int64) (lost int) {
	s.lock.Lock()
	defer s.lock.Unlock()
	for len(s.files) > 1 && (s.files[1] <= before || s.end-s.files[0] > s.most) {
		if s.files[1] > before {
			lost += s.lines(s.files[0], before)
		}
		if err := os.Remove(s.path(s.files[0])); err != nil && !errors.Is(err, os.ErrNotExist) {
			log.Printf("the spool: %v", err)
			return lost
		}
		s.files = s.files[1:]
	}
	return lost
}

// lines counts those of a file's records from a place on.
func (s *spool) lines(start, from int64) (count int) {
	file, err := os.Open(s.path(start))
	if err != nil {
		return 0
	}
	defer file.Close()
	for at := start; ; {
		told, _, length, err := readRecord(file, at-start, nil)
		if err != nil {
			return count
		}
		if at >= from {
			count += told.Lines
		}
		at += length
	}
}

// holder reads records by their place; it keeps the file open that it read last.
type holder struct {
	spool *spool
	start int64
	file  *os.File
}

// get gives the record at a place, whose batch is valid until the next call, and the place behind it. Where a damaged record is, the next file begins.
func (h *holder) get(at int64, into []byte) (told description, batch []byte, next int64, err error) {
	h.spool.lock.Lock()
	start, following := int64(-1), h.spool.end
	for place, one := range h.spool.files {
		if one <= at {
			start, following = one, h.spool.end
			if place+1 < len(h.spool.files) {
				following = h.spool.files[place+1]
			}
		}
	}
	h.spool.lock.Unlock()
	if start < 0 {
		return told, nil, at, errGone
	}
	if h.file == nil || h.start != start {
		h.close()
		if h.file, err = os.Open(h.spool.path(start)); err != nil {
			return told, nil, at, err
		}
		h.start = start
	}
	told, batch, length, err := readRecord(h.file, at-start, into)
	if errors.Is(err, errDamaged) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		log.Printf("the spool is damaged at %d: what follows in that file, %d bytes, is left out", at, following-at)
		return description{}, nil, following, nil
	}
	return told, batch, at + length, err
}

func (h *holder) close() {
	if h.file != nil {
		h.file.Close()
		h.file = nil
	}
}

var (
	errDamaged = errors.New("the record is damaged")
	errGone    = errors.New("the record is gone")
)

// readRecord reads the record at an offset of a file into a buffer, and gives its length there.
func readRecord(file *os.File, at int64, into []byte) (told description, batch []byte, length int64, err error) {
	var header [headerLength]byte
	if _, err = file.ReadAt(header[:], at); err != nil {
		return told, nil, 0, err
	}
	text, body := int64(binary.LittleEndian.Uint32(header[4:])), int64(binary.LittleEndian.Uint32(header[8:]))
	if binary.LittleEndian.Uint32(header[0:]) != magic || text > mostRecord || body > mostRecord {
		return told, nil, 0, errDamaged
	}
	if int64(cap(into)) < text+body {
		into = make([]byte, text+body, (text+body)*9/8+4096)
	}
	into = into[:text+body]
	if _, err = file.ReadAt(into, at+headerLength); err != nil {
		return told, nil, 0, err
	}
	if crc32.Checksum(into, castagnoli) != binary.LittleEndian.Uint32(header[12:]) || json.Unmarshal(into[:text], &told) != nil {
		return told, nil, 0, errDamaged
	}
	return told, into[text:], headerLength + text + body, nil
}

// keep saves and clears the spool from time to time, until told to stop.
func (s *spool) keep(stop <-chan struct{}, settled func() int64, lost func(int)) {
	for {
		select {
		case <-stop:
			s.save()
			return
		case <-time.After(time.Second):
		}
		s.save()
		if count := s.clear(settled()); count > 0 {
			lost(count)
		}
	}
}
