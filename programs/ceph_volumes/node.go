// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// How long is waited for a mount, for the data of one to be written, and for an answer of one, if the orchestrator waits as long.
const (
	mountLimit  = 60 * time.Second
	finishLimit = 120 * time.Second
	answerLimit = 10 * time.Second
	moment      = 100 * time.Millisecond
)

// node mounts the volumes that are published to this node.
type node struct {
	csi.UnimplementedNodeServer
	name    string
	keys    keys
	mounts  mounts
	clients clients
	locks   locks

	mu    sync.Mutex
	asked map[string]bool // paths of which an answer is awaited
}

func newNode(name string, keys keys, mounts mounts, clients clients) *node {
	return &node{name: name, keys: keys, mounts: mounts, clients: clients, asked: map[string]bool{}}
}

func (n *node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: n.name}, nil
}

func (n *node) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	answer := &csi.NodeGetCapabilitiesResponse{}
	for _, one := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		answer.Capabilities = append(answer.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: one}},
		})
	}
	return answer, nil
}

// The name of the client of a volume on this node.
func (v volume) client() string { return v.filesystem + ":" + v.group + ":" + v.name }

func (n *node) NodeStageVolume(ctx context.Context, request *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	if request.GetVolumeId() == "" || request.GetStagingTargetPath() == "" {
		return nil, status.Error(codes.InvalidArgument, "a volume and a path to stage it at must be given")
	}
	if _, err := usable(request.GetVolumeCapability()); err != nil {
		return nil, err
	}
	v, free, err := n.take(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer free()
	if err := n.stage(ctx, v, request.GetStagingTargetPath(), request.GetPublishContext()); err != nil {
		return nil, answer(err)
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

// take is the volume of an id, which nobody else works on meanwhile.
func (n *node) take(id string) (volume, func(), error) {
	v, ours := parseVolume(id)
	if !ours {
		return v, nil, status.Errorf(codes.NotFound, "there is no volume %q", id)
	}
	free, err := n.locks.take(id)
	return v, free, err
}

// stage mounts a volume where it is not mounted, or where the mount of it is stale.
func (n *node) stage(ctx context.Context, v volume, path string, published map[string]string) error {
	path = resolved(path)
	switch mounted, err := n.mounted(ctx, path); {
	case err == nil && mounted:
		return nil
	case err != nil && !errors.Is(err, errStale):
		return err
	}
	m := mount{entity: published[contextEntity], filesystem: published[contextFilesystem], folder: published[contextFolder], target: path}
	if m.entity != "client."+v.user(n.name) || m.filesystem == "" || m.folder == "" {
		return status.Errorf(codes.InvalidArgument, "%s is not published to this node, %s", v.id(), n.name)
	}
	// A client that nothing is mounted by any more, or that was cut off.
	if err := n.clients.Kill(ctx, v.client()); err != nil {
		return err
	}
	if err := n.release(path, true); err != nil {
		return err
	}
	var err error
	if m.key, err = n.keys.Key(ctx, m.entity); err != nil {
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EACCES) {
			return status.Errorf(codes.FailedPrecondition, "this node has no key of %s: %v", v.id(), err)
		}
		return err
	}
	if err := os.MkdirAll(path, 0o750); err != nil {
		return err
	}
	if err := n.clients.Start(ctx, v.client(), m); err != nil {
		return err
	}
	// The client has read its key by then.
	defer func() { _ = n.clients.Forget(v.client()) }()
	ctx, cancel := context.WithTimeout(ctx, mountLimit)
	defer cancel()
	for {
		if mounted, err := n.mounted(ctx, path); err == nil && mounted {
			return nil
		}
		running, err := n.clients.Running(ctx, v.client())
		if err == nil && !running {
			return status.Errorf(codes.Internal, "the client of %s has ended: %s", v.id(), n.log(v))
		}
		if !pause(ctx, moment) {
			return errors.Join(
				status.Errorf(codes.Unavailable, "%s is not mounted in %s: %s", v.id(), mountLimit, n.log(v)),
				n.clients.Kill(context.WithoutCancel(ctx), v.client()))
		}
	}
}

// log is where the client of a volume says what is wrong.
func (n *node) log(v volume) string {
	return "see journalctl -u 'ceph-volume@" + v.client() + "' on " + n.name
}

// errStale is a mount whose client is gone or was cut off: it will not answer again.
var errStale = errors.New("the mount is stale")

// mounted says whether something is mounted at a path and answers.
func (n *node) mounted(ctx context.Context, path string) (bool, error) {
	list, err := n.mounts.List()
	if err != nil {
		return false, err
	}
	if _, is := list[path]; !is {
		return false, nil
	}
	// Of one that was cut off, even the folder itself can't be found. One that waits for Ceph answers nothing.
	return true, n.within(ctx, path, func() error {
		if err := n.mounts.Answers(path); err != nil {
			return errors.Join(errStale, err)
		}
		return nil
	})
}

// within asks a mount, for a limited time. While it does not answer it is not asked again, since each time costs a thread.
func (n *node) within(ctx context.Context, path string, ask func() error) error {
	silent := status.Errorf(codes.Unavailable, "the volume at %s does not answer: does Ceph?", path)
	n.mu.Lock()
	waiting := n.asked[path]
	n.asked[path] = true
	n.mu.Unlock()
	if waiting {
		return silent
	}
	answered := make(chan error, 1)
	go func() {
		err := ask()
		n.mu.Lock()
		delete(n.asked, path)
		n.mu.Unlock()
		answered <- err
	}()
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
		return silent
	}
}

// release takes away whatever is mounted at a path.
func (n *node) release(path string, stale bool) error {
	// Some may be below others.
	for range 16 {
		list, err := n.mounts.List()
		if err != nil {
			return err
		}
		if _, is := list[path]; !is {
			return nil
		}
		if err := n.mounts.Unmount(path, stale); err != nil {
			return err
		}
	}
	return status.Errorf(codes.Internal, "%s is still a mount point after it was unmounted 16 times", path)
}

func (n *node) NodeUnstageVolume(ctx context.Context, request *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if request.GetVolumeId() == "" || request.GetStagingTargetPath() == "" {
		return nil, status.Error(codes.InvalidArgument, "a volume and the path it is staged at must be given")
	}
	v, free, err := n.take(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer free()
	path := resolved(request.GetStagingTargetPath())
	_, err = n.mounted(ctx, path)
	stale := errors.Is(err, errStale)
	if err != nil && !stale {
		return nil, answer(err)
	}
	if err := n.release(path, stale); err != nil {
		return nil, answer(err)
	}
	if stale {
		err = n.clients.Kill(ctx, v.client())
	} else {
		err = n.finish(ctx, v)
	}
	if err == nil {
		err = n.clients.Discard(v.client())
	}
	if err != nil {
		return nil, answer(err)
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

// finish waits until the client of a volume has written what it still holds: after this the node loses its key.
func (n *node) finish(ctx context.Context, v volume) error {
	ctx, cancel := context.WithTimeout(ctx, finishLimit)
	defer cancel()
	for {
		running, err := n.clients.Running(ctx, v.client())
		if err == nil && !running {
			return nil
		}
		if !pause(ctx, moment) {
			return status.Errorf(codes.Unavailable, "the client of %s has not ended, it may still write: %s", v.id(), n.log(v))
		}
	}
}

func (n *node) NodePublishVolume(ctx context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if request.GetVolumeId() == "" || request.GetTargetPath() == "" || request.GetStagingTargetPath() == "" {
		return nil, status.Error(codes.InvalidArgument, "a volume, the path it is staged at and a path to publish it at must be given")
	}
	how, err := usable(request.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	v, free, err := n.take(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer free()
	// Its client may have died since it was staged, and nothing stages it again for one more pod.
	if err := n.stage(ctx, v, request.GetStagingTargetPath(), request.GetPublishContext()); err != nil {
		return nil, answer(err)
	}
	single := request.GetVolumeCapability().GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	readonly := request.GetReadonly() || how.readonly
	if err := n.publish(resolved(request.GetStagingTargetPath()), resolved(request.GetTargetPath()), readonly, single); err != nil {
		return nil, answer(err)
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (n *node) publish(staged, target string, readonly, single bool) error {
	list, err := n.mounts.List()
	if err != nil {
		return err
	}
	for point, device := range list {
		if single && device == list[staged] && point != staged && point != target {
			return status.Errorf(codes.FailedPrecondition, "the volume is published at %s, and may be at one place only", point)
		}
	}
	if device, is := list[target]; is {
		if device == list[staged] {
			return nil
		}
		// Of a client that is gone.
		if err := n.release(target, true); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(target, 0o750); err != nil {
		return err
	}
	return n.mounts.Bind(staged, target, readonly)
}

func (n *node) NodeUnpublishVolume(_ context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if request.GetVolumeId() == "" || request.GetTargetPath() == "" {
		return nil, status.Error(codes.InvalidArgument, "a volume and the path it is published at must be given")
	}
	_, free, err := n.take(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer free()
	target := resolved(request.GetTargetPath())
	// What was written through it stays with the client, so it can go at once even if it is used.
	if err := n.release(target, true); err != nil {
		return nil, answer(err)
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (n *node) NodeGetVolumeStats(ctx context.Context, request *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	if request.GetVolumeId() == "" || request.GetVolumePath() == "" {
		return nil, status.Error(codes.InvalidArgument, "a volume and a path must be given")
	}
	path := resolved(request.GetVolumePath())
	if mounted, err := n.mounted(ctx, path); err != nil {
		return nil, answer(err)
	} else if !mounted {
		return nil, status.Errorf(codes.NotFound, "no volume is mounted at %s", request.GetVolumePath())
	}
	var total, free int64
	if err := n.within(ctx, path, func() (err error) { total, free, err = n.mounts.Usage(path); return err }); err != nil {
		return nil, answer(err)
	}
	return &csi.NodeGetVolumeStatsResponse{
		Usage: []*csi.VolumeUsage{{Unit: csi.VolumeUsage_BYTES, Total: total, Available: free, Used: total - free}},
	}, nil
}

// resolved is a path as the kernel lists it, without touching what is mounted there.
func resolved(path string) string {
	path = filepath.Clean(path)
	if folder, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil && strings.HasPrefix(path, "/") {
		return filepath.Join(folder, filepath.Base(path))
	}
	return path
}

func pause(ctx context.Context, long time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(long):
		return true
	}
}
