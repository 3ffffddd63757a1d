// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fakeCeph is a backend in memory, which answers as Ceph 18.2 does.
type fakeCeph struct {
	mu      sync.Mutex
	volumes map[volume]*fakeVolume
	calls   []string
	// fails has an error for a method, by its name.
	fails map[string]error
	// copying is how often a copy is asked for before it is there; broken: that it fails.
	copying int
	broken  bool
	between func(method string) // runs before each method
}

type fakeVolume struct {
	details
	users     map[string]string
	snapshots map[string]time.Time
	waits     int
	failed    bool
}

func newFakeCeph() *fakeCeph {
	return &fakeCeph{volumes: map[volume]*fakeVolume{}, fails: map[string]error{}}
}

func (f *fakeCeph) call(method string, words ...string) (func(), error) {
	if f.between != nil {
		f.between(method)
	}
	f.mu.Lock()
	f.calls = append(f.calls, strings.Join(append([]string{method}, words...), " "))
	return f.mu.Unlock, f.fails[method]
}

// found is a volume that is there and not only its snapshots.
func (f *fakeCeph) found(v volume) (*fakeVolume, error) {
	one, is := f.volumes[v]
	if !is || one.retained {
		return nil, fmt.Errorf("subvolume '%s' does not exist: %w", v.name, syscall.ENOENT)
	}
	if one.waits > 0 || one.failed {
		return nil, fmt.Errorf("subvolume '%s' is not ready: %w", v.name, syscall.EAGAIN)
	}
	return one, nil
}

func (f *fakeCeph) Volumes(_ context.Context, filesystem, group string) ([]volume, error) {
	done, err := f.call("Volumes")
	defer done()
	var list []volume
	for v := range f.volumes {
		if v.filesystem == filesystem && v.group == group {
			list = append(list, v)
		}
	}
	return list, err
}

func (f *fakeCeph) Details(_ context.Context, v volume) (details, error) {
	done, err := f.call("Details", v.name)
	defer done()
	if err != nil {
		return details{}, err
	}
	if one, is := f.volumes[v]; is && one.retained {
		return details{retained: true}, nil
	}
	one, err := f.found(v)
	if err != nil {
		return details{}, err
	}
	return one.details, nil
}

func (f *fakeCeph) add(v volume, bytes int64, copied bool) *fakeVolume {
	made := &fakeVolume{
		details: details{path: "/volumes/" + v.group + "/" + v.name + "/data", bytes: bytes, copied: copied},
		users:   map[string]string{}, snapshots: map[string]time.Time{},
	}
	if before, is := f.volumes[v]; is {
		made.snapshots = before.snapshots
	}
	f.volumes[v] = made
	return made
}

func (f *fakeCeph) Create(_ context.Context, v volume, bytes int64) error {
	done, err := f.call("Create", v.name)
	defer done()
	if err == nil {
		f.add(v, bytes, false)
	}
	return err
}

func (f *fakeCeph) Remove(_ context.Context, v volume) error {
	done, err := f.call("Remove", v.name)
	defer done()
	if err != nil {
		return err
	}
	if one, is := f.volumes[v]; is && one.retained {
		return nil
	}
	one, err := f.found(v)
	if err != nil {
		return err
	}
	one.retained = true
	f.purge(v)
	return nil
}

func (f *fakeCeph) purge(v volume) {
	if one := f.volumes[v]; one.retained && len(one.snapshots) == 0 {
		delete(f.volumes, v)
	}
}

func (f *fakeCeph) Resize(_ context.Context, v volume, bytes int64) error {
	done, err := f.call("Resize", v.name)
	defer done()
	if err != nil {
		return err
	}
	one, err := f.found(v)
	if err == nil {
		one.bytes = bytes
	}
	return err
}

func (f *fakeCeph) Users(_ context.Context, v volume) (map[string]string, error) {
	done, err := f.call("Users", v.name)
	defer done()
	if err != nil {
		return nil, err
	}
	one, err := f.found(v)
	if err != nil {
		return nil, err
	}
	return maps.Clone(one.users), nil
}

func (f *fakeCeph) Authorize(_ context.Context, v volume, user, level string) error {
	done, err := f.call("Authorize", v.name, user, level)
	defer done()
	if err != nil {
		return err
	}
	one, err := f.found(v)
	if err == nil {
		one.users[user] = level
	}
	return err
}

func (f *fakeCeph) Deauthorize(_ context.Context, v volume, user string) error {
	done, err := f.call("Deauthorize", v.name, user)
	defer done()
	if err != nil {
		return err
	}
	one, err := f.found(v)
	if err != nil {
		return err
	}
	if _, has := one.users[user]; !has {
		return fmt.Errorf("auth ID: %s doesn't exist: %w", user, syscall.ENOENT)
	}
	delete(one.users, user)
	return nil
}

func (f *fakeCeph) Evict(_ context.Context, v volume, user string) error {
	done, err := f.call("Evict", v.name, user)
	defer done()
	if err != nil {
		return err
	}
	_, err = f.found(v)
	return err
}

func (f *fakeCeph) Snapshots(_ context.Context, v volume) ([]snapshot, error) {
	done, err := f.call("Snapshots", v.name)
	defer done()
	one, is := f.volumes[v]
	if err != nil || !is {
		return nil, fmt.Errorf("subvolume '%s' does not exist: %w", v.name, syscall.ENOENT)
	}
	var list []snapshot
	for name := range one.snapshots {
		list = append(list, snapshot{v, name})
	}
	return list, nil
}

func (f *fakeCeph) Taken(_ context.Context, s snapshot) (time.Time, error) {
	done, err := f.call("Taken", s.name)
	defer done()
	if one, is := f.volumes[s.of]; is && err == nil {
		if when, has := one.snapshots[s.name]; has {
			return when, nil
		}
	}
	return time.Time{}, fmt.Errorf("snapshot '%s' does not exist: %w", s.name, syscall.ENOENT)
}

func (f *fakeCeph) Snap(_ context.Context, s snapshot) error {
	done, err := f.call("Snap", s.name)
	defer done()
	if err != nil {
		return err
	}
	one, err := f.found(s.of)
	if err != nil {
		return err
	}
	if _, has := one.snapshots[s.name]; !has {
		one.snapshots[s.name] = time.Now()
	}
	return nil
}

func (f *fakeCeph) RemoveSnapshot(_ context.Context, s snapshot) error {
	done, err := f.call("RemoveSnapshot", s.name)
	defer done()
	if err != nil {
		return err
	}
	one, is := f.volumes[s.of]
	if !is {
		return syscall.ENOENT
	}
	if _, has := one.snapshots[s.name]; !has {
		return syscall.ENOENT
	}
	for _, other := range f.volumes {
		if other.waits > 0 {
			return fmt.Errorf("snapshot '%s' has pending clones: %w", s.name, syscall.EAGAIN)
		}
	}
	delete(one.snapshots, s.name)
	f.purge(s.of)
	return nil
}

func (f *fakeCeph) Copy(_ context.Context, from snapshot, to volume) error {
	done, err := f.call("Copy", from.name, to.name)
	defer done()
	if err != nil {
		return err
	}
	source, is := f.volumes[from.of]
	if !is {
		return fmt.Errorf("subvolume '%s' does not exist: %w", from.of.name, syscall.ENOENT)
	}
	if _, has := source.snapshots[from.name]; !has {
		return fmt.Errorf("snapshot '%s' does not exist: %w", from.name, syscall.ENOENT)
	}
	if _, is := f.volumes[to]; is {
		return fmt.Errorf("subvolume '%s' exists: %w", to.name, syscall.EEXIST)
	}
	made := f.add(to, source.bytes, true)
	made.waits, made.failed = f.copying, f.broken
	return nil
}

func (f *fakeCeph) CopyState(_ context.Context, v volume) (string, error) {
	done, err := f.call("CopyState", v.name)
	defer done()
	one, is := f.volumes[v]
	switch {
	case err != nil:
		return "", err
	case !is:
		return "", syscall.ENOENT
	case one.failed:
		return "failed", nil
	case one.waits > 0:
		one.waits--
		return "in-progress", nil
	default:
		return "complete", nil
	}
}

func (f *fakeCeph) RemoveCopy(_ context.Context, v volume) error {
	done, err := f.call("RemoveCopy", v.name)
	defer done()
	delete(f.volumes, v)
	return err
}

func (f *fakeCeph) Key(_ context.Context, entity string) (string, error) {
	done, err := f.call("Key", entity)
	defer done()
	if err != nil {
		return "", err
	}
	for _, one := range f.volumes {
		if _, has := one.users[strings.TrimPrefix(entity, "client.")]; has {
			return "key of " + entity, nil
		}
	}
	return "", fmt.Errorf("don't have %s: %w", entity, syscall.ENOENT)
}

// since are the calls of some methods since a moment.
func (f *fakeCeph) since(begin int, methods ...string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []string
	for _, call := range f.calls[begin:] {
		if method, _, _ := strings.Cut(call, " "); slices.Contains(methods, method) {
			list = append(list, call)
		}
	}
	return strings.Join(list, "; ")
}

// fakeHost has mounts and clients in memory.
type fakeHost struct {
	mu      sync.Mutex
	points  map[string]string
	readers map[string]bool
	running map[string]mount
	devices int
	// stale are devices that do not answer again, silent ones block until the channel is closed.
	stale  map[string]bool
	silent chan struct{}
	dies   bool // whatever client is started ends at once
	keeps  bool // clients still write when nothing is mounted by them any more
	killed []string
}

func newFakeHost() *fakeHost {
	return &fakeHost{points: map[string]string{}, readers: map[string]bool{}, running: map[string]mount{}, stale: map[string]bool{}}
}

func (f *fakeHost) List() (map[string]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.points), nil
}

func (f *fakeHost) Answers(path string) error {
	f.mu.Lock()
	silent, stale := f.silent, f.stale[f.points[path]]
	f.mu.Unlock()
	if silent != nil {
		<-silent
	}
	if stale {
		return syscall.ENOTCONN
	}
	return nil
}

func (f *fakeHost) Usage(string) (int64, int64, error) { return 8 * mib, 5 * mib, nil }

func (f *fakeHost) Bind(source, target string, readonly bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.points[target], f.readers[target] = f.points[source], readonly
	return nil
}

func (f *fakeHost) Unmount(target string, stale bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	device := f.points[target]
	if f.stale[device] && !stale {
		return syscall.ENOTCONN
	}
	delete(f.points, target)
	for name, m := range f.running {
		if m.target == target && !f.keeps {
			delete(f.running, name)
		}
	}
	return nil
}

func (f *fakeHost) Start(_ context.Context, name string, m mount) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.dies {
		f.devices++
		f.points[m.target] = fmt.Sprintf("0:%d", f.devices)
		f.running[name] = m
	}
	return nil
}

func (f *fakeHost) Running(_ context.Context, name string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, is := f.running[name]
	return is, nil
}

func (f *fakeHost) Kill(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.running, name)
	f.killed = append(f.killed, name)
	return nil
}

func (f *fakeHost) Forget(string) error { return nil }

func (f *fakeHost) Discard(string) error { return nil }

func (f *fakeHost) die(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stale[f.points[path]] = true
}

// until waits for an event.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("a minute has passed, and not: %s", what)
		}
	}
}
