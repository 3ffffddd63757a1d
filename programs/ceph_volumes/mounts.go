// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// mounts are those of the host.
type mounts interface {
	// List has each mount point with its device, without touching what is mounted there.
	List() (map[string]string, error)
	// Answers asks what is mounted at a path; it may take for ever.
	Answers(path string) error
	Usage(path string) (total, free int64, err error)
	Bind(source, target string, readonly bool) error
	// Unmount takes a mount away; at once, with whatever was not written, if it is stale.
	Unmount(target string, stale bool) error
}

// clients run a client of Ceph for each volume, which outlives this program.
type clients interface {
	Start(ctx context.Context, name string, m mount) error
	Running(ctx context.Context, name string) (bool, error)
	// Kill ends a client of which nothing is wanted any more.
	Kill(ctx context.Context, name string) error
	// Forget removes the key of a client, which has read it.
	Forget(name string) error
	// Discard removes all that is kept of one that has ended.
	Discard(name string) error
}

// mount is what a client mounts.
type mount struct{ entity, key, filesystem, folder, target string }

type host struct{}

func (host) List() (map[string]string, error) {
	found, err := mountinfo.GetMounts(nil)
	list := map[string]string{}
	for _, one := range found {
		list[one.Mountpoint] = fmt.Sprintf("%d:%d", one.Major, one.Minor)
	}
	return list, err
}

func (host) Answers(path string) error {
	_, err := os.Stat(path)
	return err
}

func (host) Usage(path string) (total, free int64, err error) {
	var found unix.Statfs_t
	err = unix.Statfs(path, &found)
	return int64(found.Blocks) * found.Bsize, int64(found.Bavail) * found.Bsize, err
}

func (host) Bind(source, target string, readonly bool) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "mount", Path: target, Err: err}
	}
	if !readonly {
		return nil
	}
	// The kernel heeds this for a mount that is there only.
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return errors.Join(&os.PathError{Op: "remount", Path: target, Err: err}, unix.Unmount(target, unix.MNT_DETACH))
	}
	return nil
}

func (host) Unmount(target string, stale bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if stale {
		flags |= unix.MNT_DETACH
	}
	if err := unix.Unmount(target, flags); err != nil {
		return &os.PathError{Op: "unmount", Path: target, Err: err}
	}
	return nil
}

// units are the instances of ceph-volume@.service, one a volume: a restart of this program leaves them alone, systemd keeps their logs and
// limits, and what they may do is in a file that can be read.
type units struct{ runtime string }

// What systemd reads from a file of settings as it is written there.
var plain = regexp.MustCompile(`^[A-Za-z0-9/._:~@+=,-]+$`)

func (u units) unit(name string) string { return "ceph-volume@" + name + ".service" }

func (u units) Start(ctx context.Context, name string, m mount) error {
	settings := map[string]string{"entity": m.entity, "filesystem": m.filesystem, "folder": m.folder, "target": m.target}
	var text strings.Builder
	for variable, value := range settings {
		if !plain.MatchString(value) {
			return fmt.Errorf("the %s of the volume is %q, it must match %s", variable, value, plain)
		}
		fmt.Fprintf(&text, "VOLUME_%s=%s\n", strings.ToUpper(variable), value)
	}
	folder := filepath.Join(u.runtime, name)
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for file, content := range map[string]string{
		"settings": text.String(), "keyring": fmt.Sprintf("[%s]\n\tkey = %s\n", m.entity, m.key), "key": m.key + "\n",
	} {
		if err := os.WriteFile(filepath.Join(folder, file), []byte(content), 0o600); err != nil {
			return err
		}
	}
	_, err := u.systemctl(ctx, "start", u.unit(name))
	return err
}

func (u units) Running(ctx context.Context, name string) (bool, error) {
	state, err := u.systemctl(ctx, "show", "--property=ActiveState", "--value", u.unit(name))
	return state == "active" || state == "activating" || state == "deactivating", err
}

func (u units) Kill(ctx context.Context, name string) error {
	_, err := u.systemctl(ctx, "stop", u.unit(name))
	if err == nil {
		// One that failed before is no reason not to start again.
		_, _ = u.systemctl(ctx, "reset-failed", u.unit(name))
	}
	return err
}

func (u units) Forget(name string) error {
	var failed error
	for _, file := range []string{"keyring", "key"} {
		if err := os.Remove(filepath.Join(u.runtime, name, file)); err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = err
		}
	}
	return failed
}

func (u units) Discard(name string) error { return os.RemoveAll(filepath.Join(u.runtime, name)) }

func (units) systemctl(ctx context.Context, words ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	run := exec.CommandContext(ctx, "systemctl", words...)
	run.WaitDelay = time.Second
	out, err := run.CombinedOutput()
	said := strings.TrimSpace(string(out))
	if err != nil {
		return said, fmt.Errorf("systemctl %s: %w: %s", strings.Join(words, " "), err, said)
	}
	return said, nil
}
