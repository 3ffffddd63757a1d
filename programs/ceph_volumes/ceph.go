// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A manager that takes over answers within seconds, and an orchestrator tries again.
const commandLimit = 60 * time.Second

// details are what Ceph says of a volume.
type details struct {
	path     string
	bytes    int64 // its quota; 0: none
	copied   bool  // it was made from a snapshot
	retained bool  // it is deleted, and snapshots of it are not
}

// backend is what the controller needs of Ceph. Its errors wrap Ceph's numbers, such as syscall.ENOENT.
type backend interface {
	Volumes(ctx context.Context, filesystem, group string) ([]volume, error)
	// Details of a copy under way are syscall.EAGAIN.
	Details(context.Context, volume) (details, error)
	Create(ctx context.Context, v volume, bytes int64) error
	// Remove leaves snapshots, with which the rest of the volume goes later.
	Remove(context.Context, volume) error
	Resize(ctx context.Context, v volume, bytes int64) error

	// Users are who may use a volume: name -> r or rw.
	Users(context.Context, volume) (map[string]string, error)
	Authorize(ctx context.Context, v volume, user, level string) error
	Deauthorize(ctx context.Context, v volume, user string) error
	// Evict ends the sessions of a user and refuses whatever it still sends.
	Evict(ctx context.Context, v volume, user string) error

	Snapshots(context.Context, volume) ([]snapshot, error)
	Taken(context.Context, snapshot) (time.Time, error)
	Snap(context.Context, snapshot) error
	RemoveSnapshot(context.Context, snapshot) error
	Copy(ctx context.Context, from snapshot, to volume) error
	// CopyState is pending, in-progress, complete, failed or canceled.
	CopyState(context.Context, volume) (string, error)
	// RemoveCopy removes a copy that failed.
	RemoveCopy(context.Context, volume) error
}

// keys is what a node needs of Ceph.
type keys interface {
	Key(ctx context.Context, entity string) (string, error)
}

// command runs Ceph's command line. Keys are in no arguments.
type command struct{ entity, keyring string }

var (
	_ backend = command{}
	_ keys    = command{}
	// Among warnings of Ceph's library.
	cephError = regexp.MustCompile(`(?m)^Error (E[A-Z0-9]+):? ?(.*)$`)
	errnos    = map[string]syscall.Errno{
		"EACCES": syscall.EACCES, "EAGAIN": syscall.EAGAIN, "EBUSY": syscall.EBUSY, "EDQUOT": syscall.EDQUOT, "EEXIST": syscall.EEXIST,
		"EINVAL": syscall.EINVAL, "ENOENT": syscall.ENOENT, "ENOSPC": syscall.ENOSPC, "ENOTEMPTY": syscall.ENOTEMPTY, "ENOTSUP": syscall.ENOTSUP,
		"EPERM": syscall.EPERM, "ETIMEDOUT": syscall.ETIMEDOUT,
	}
)

func (c command) run(ctx context.Context, words ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	arguments := append([]string{"--connect-timeout", "20", "--name", c.entity, "--format", "json"}, words...)
	run := exec.CommandContext(ctx, "ceph", arguments...)
	// As an option it is read too late for Ceph's library, which warns of each default file that is not there.
	run.Env = append(os.Environ(), "CEPH_KEYRING="+c.keyring)
	run.WaitDelay = time.Second
	var out, said bytes.Buffer
	run.Stdout, run.Stderr = &out, &said
	err := run.Run()
	if err == nil {
		return out.Bytes(), nil
	}
	what := "ceph " + strings.Join(words, " ")
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s did not end in %s: %w", what, commandLimit, context.DeadlineExceeded)
	}
	if found := cephError.FindStringSubmatch(said.String()); found != nil {
		if number, known := errnos[found[1]]; known {
			return nil, fmt.Errorf("%s: %s: %w", what, found[2], number)
		}
		return nil, fmt.Errorf("%s: %s: %s", what, found[1], found[2])
	}
	lines := strings.Split(strings.TrimSpace(said.String()), "\n")
	return nil, fmt.Errorf("%s: %w: %s", what, err, lines[len(lines)-1])
}

func (c command) ask(ctx context.Context, answer any, words ...string) error {
	out, err := c.run(ctx, words...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, answer); err != nil {
		return fmt.Errorf("ceph %s answers what can't be read: %w", strings.Join(words, " "), err)
	}
	return nil
}

func (c command) do(ctx context.Context, words ...string) error {
	_, err := c.run(ctx, words...)
	return err
}

func (c command) Volumes(ctx context.Context, filesystem, group string) ([]volume, error) {
	var found []struct{ Name string }
	err := c.ask(ctx, &found, "fs", "subvolume", "ls", filesystem, "--group_name", group)
	var list []volume
	for _, one := range found {
		list = append(list, volume{filesystem, group, one.Name})
	}
	return list, err
}

func (c command) Details(ctx context.Context, v volume) (details, error) {
	var found struct {
		Path  string
		Quota json.RawMessage `json:"bytes_quota"`
		State string
		Type  string
	}
	if err := c.ask(ctx, &found, "fs", "subvolume", "info", v.filesystem, v.name, "--group_name", v.group); err != nil {
		return details{}, err
	}
	// It is "infinite" where there is none.
	bytes, _ := strconv.ParseInt(string(found.Quota), 10, 64)
	return details{found.Path, bytes, found.Type == "clone", found.State == "snapshot-retained"}, nil
}

func (c command) Create(ctx context.Context, v volume, bytes int64) error {
	// In a namespace of its own, so that a key of one volume opens no objects of another.
	return c.do(ctx, "fs", "subvolume", "create", v.filesystem, v.name, "--group_name", v.group, "--size", strconv.FormatInt(bytes, 10),
		"--namespace-isolated")
}

func (c command) Remove(ctx context.Context, v volume) error {
	return c.do(ctx, "fs", "subvolume", "rm", v.filesystem, v.name, "--group_name", v.group, "--retain-snapshots")
}

func (c command) Resize(ctx context.Context, v volume, bytes int64) error {
	return c.do(ctx, "fs", "subvolume", "resize", v.filesystem, v.name, strconv.FormatInt(bytes, 10), "--group_name", v.group, "--no_shrink")
}

func (c command) Users(ctx context.Context, v volume) (map[string]string, error) {
	var found []map[string]string
	if err := c.ask(ctx, &found, "fs", "subvolume", "authorized_list", v.filesystem, v.name, "--group_name", v.group); err != nil {
		return nil, err
	}
	users := map[string]string{}
	for _, one := range found {
		for user, level := range one {
			users[user] = level
		}
	}
	return users, nil
}

func (c command) Authorize(ctx context.Context, v volume, user, level string) error {
	// It answers the key, which is nobody's business here.
	return c.do(ctx, "fs", "subvolume", "authorize", v.filesystem, v.name, user, "--group_name", v.group, "--access_level", level)
}

func (c command) Deauthorize(ctx context.Context, v volume, user string) error {
	return c.do(ctx, "fs", "subvolume", "deauthorize", v.filesystem, v.name, user, "--group_name", v.group)
}

func (c command) Evict(ctx context.Context, v volume, user string) error {
	return c.do(ctx, "fs", "subvolume", "evict", v.filesystem, v.name, user, "--group_name", v.group)
}

func (c command) Snapshots(ctx context.Context, v volume) ([]snapshot, error) {
	var found []struct{ Name string }
	err := c.ask(ctx, &found, "fs", "subvolume", "snapshot", "ls", v.filesystem, v.name, "--group_name", v.group)
	var list []snapshot
	for _, one := range found {
		list = append(list, snapshot{v, one.Name})
	}
	return list, err
}

func (c command) Taken(ctx context.Context, s snapshot) (time.Time, error) {
	var found struct {
		Created string `json:"created_at"`
	}
	err := c.ask(ctx, &found, "fs", "subvolume", "snapshot", "info", s.of.filesystem, s.of.name, s.name, "--group_name", s.of.group)
	if err != nil {
		return time.Time{}, err
	}
	// The manager's own time, without a zone.
	return time.ParseInLocation("2006-01-02 15:04:05", found.Created, time.Local)
}

func (c command) Snap(ctx context.Context, s snapshot) error {
	return c.do(ctx, "fs", "subvolume", "snapshot", "create", s.of.filesystem, s.of.name, s.name, "--group_name", s.of.group)
}

func (c command) RemoveSnapshot(ctx context.Context, s snapshot) error {
	return c.do(ctx, "fs", "subvolume", "snapshot", "rm", s.of.filesystem, s.of.name, s.name, "--group_name", s.of.group)
}

func (c command) Copy(ctx context.Context, from snapshot, to volume) error {
	return c.do(ctx, "fs", "subvolume", "snapshot", "clone", from.of.filesystem, from.of.name, from.name, to.name,
		"--group_name", from.of.group, "--target_group_name", to.group)
}

func (c command) CopyState(ctx context.Context, v volume) (string, error) {
	var found struct{ Status struct{ State string } }
	err := c.ask(ctx, &found, "fs", "clone", "status", v.filesystem, v.name, "--group_name", v.group)
	return found.Status.State, err
}

func (c command) RemoveCopy(ctx context.Context, v volume) error {
	return c.do(ctx, "fs", "subvolume", "rm", v.filesystem, v.name, "--group_name", v.group, "--force")
}

func (c command) Key(ctx context.Context, entity string) (string, error) {
	var found struct{ Key string }
	if err := c.ask(ctx, &found, "auth", "get-key", entity); err != nil {
		return "", err
	}
	if found.Key == "" {
		return "", fmt.Errorf("ceph auth get-key %s answers no key", entity)
	}
	return found.Key, nil
}

// answer is an error of Ceph as one of gRPC; an orchestrator decides by it whether to try again.
func answer(err error) error {
	if err == nil {
		return nil
	}
	if _, already := status.FromError(err); already {
		return err
	}
	code := codes.Internal
	for number, its := range map[error]codes.Code{
		syscall.ENOENT: codes.NotFound, syscall.EEXIST: codes.AlreadyExists, syscall.EAGAIN: codes.Aborted, syscall.EBUSY: codes.Aborted,
		syscall.EINVAL: codes.InvalidArgument, syscall.ENOSPC: codes.ResourceExhausted, syscall.EDQUOT: codes.ResourceExhausted,
		syscall.EACCES: codes.PermissionDenied, syscall.EPERM: codes.PermissionDenied, syscall.ENOTEMPTY: codes.FailedPrecondition,
		syscall.ETIMEDOUT: codes.Unavailable, context.DeadlineExceeded: codes.Unavailable,
	} {
		if errors.Is(err, number) {
			code = its
		}
	}
	return status.Error(code, err.Error())
}
