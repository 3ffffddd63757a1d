// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// What a node is told when it gets a volume. No key: it asks Ceph for that.
const (
	contextEntity     = "entity"
	contextFilesystem = "filesystem"
	contextFolder     = "folder"
)

// controller makes volumes, and takes care of who may use them.
type controller struct {
	csi.UnimplementedControllerServer
	ceph              backend
	filesystem, group string // of new volumes
	nodes             func() ([]string, error)
	patience          time.Duration // with a copy, before an orchestrator is told to try again
	locks             locks
}

func newController(ceph backend, filesystem, group string, nodes func() ([]string, error)) *controller {
	return &controller{ceph: ceph, filesystem: filesystem, group: group, nodes: nodes, patience: 30 * time.Second}
}

func (c *controller) ControllerGetCapabilities(
	context.Context, *csi.ControllerGetCapabilitiesRequest,
) (*csi.ControllerGetCapabilitiesResponse, error) {
	answer := &csi.ControllerGetCapabilitiesResponse{}
	for _, one := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
		csi.ControllerServiceCapability_RPC_PUBLISH_READONLY,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		answer.Capabilities = append(answer.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: one}},
		})
	}
	return answer, nil
}

// source is what a new volume is a copy of.
func (c *controller) source(asked *csi.VolumeContentSource, to volume) (from snapshot, temporary bool, err error) {
	var found bool
	switch {
	case asked.GetSnapshot() != nil:
		from, found = parseSnapshot(asked.GetSnapshot().GetSnapshotId())
	case asked.GetVolume() != nil:
		from.of, found = parseVolume(asked.GetVolume().GetVolumeId())
		from.name, temporary = copyPrefix+to.name, true
	default:
		return from, false, status.Error(codes.InvalidArgument, "a volume can be a copy of a snapshot or of a volume, of nothing else")
	}
	if !found {
		return from, temporary, status.Errorf(codes.NotFound, "there is no %s", asked)
	}
	if from.of.filesystem != to.filesystem {
		return from, temporary, status.Errorf(codes.InvalidArgument, "%s is in another file system than %s", from.of.id(), to.id())
	}
	return from, temporary, nil
}

func (c *controller) CreateVolume(ctx context.Context, request *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if request.GetName() == "" {
		return nil, status.Error(codes.InvalidArgument, "no name is given")
	}
	if _, err := usable(request.GetVolumeCapabilities()...); err != nil {
		return nil, err
	}
	if len(request.GetMutableParameters()) > 0 {
		return nil, status.Error(codes.InvalidArgument, "volumes have no mutable parameters")
	}
	bytes, err := size(request.GetCapacityRange())
	if err != nil {
		return nil, err
	}
	wanted := volume{c.filesystem, c.group, named(request.GetName())}
	free, err := c.locks.take(wanted.id())
	if err != nil {
		return nil, err
	}
	defer free()
	var has int64
	if request.GetVolumeContentSource() == nil {
		has, err = c.create(ctx, wanted, bytes, request.GetCapacityRange())
	} else {
		has, err = c.copied(ctx, wanted, bytes, request)
	}
	if err != nil {
		return nil, answer(err)
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId: wanted.id(), CapacityBytes: has, ContentSource: request.GetVolumeContentSource(),
	}}, nil
}

func (c *controller) create(ctx context.Context, wanted volume, bytes int64, asked *csi.CapacityRange) (int64, error) {
	switch found, err := c.ceph.Details(ctx, wanted); {
	case errors.Is(err, syscall.ENOENT), err == nil && found.retained:
		return bytes, c.ceph.Create(ctx, wanted, bytes)
	case err != nil:
		return 0, err
	case found.copied:
		return 0, status.Errorf(codes.AlreadyExists, "%s is there and a copy", wanted.id())
	default:
		return found.bytes, fits(wanted, found.bytes, asked)
	}
}

// copied has a volume copied by Ceph, which takes as long as there is data; if that is long, the answer is to try again.
func (c *controller) copied(ctx context.Context, wanted volume, bytes int64, request *csi.CreateVolumeRequest) (int64, error) {
	from, temporary, err := c.source(request.GetVolumeContentSource(), wanted)
	if err != nil {
		return 0, err
	}
	found, err := c.ceph.Details(ctx, wanted)
	if errors.Is(err, syscall.ENOENT) {
		if temporary {
			if err := c.ceph.Snap(ctx, from); err != nil {
				return 0, err
			}
		}
		if err := c.ceph.Copy(ctx, from, wanted); err != nil {
			return 0, err
		}
		found, err = c.ceph.Details(ctx, wanted)
	}
	for end := time.Now().Add(c.patience); errors.Is(err, syscall.EAGAIN); found, err = c.ceph.Details(ctx, wanted) {
		state, err := c.ceph.CopyState(ctx, wanted)
		if err != nil {
			return 0, err
		}
		if state == "failed" || state == "canceled" {
			if err := c.ceph.RemoveCopy(ctx, wanted); err != nil {
				return 0, err
			}
			return 0, status.Errorf(codes.Internal, "the copy of %s %s and is removed: it is begun again when it is tried again", from.id(), state)
		}
		if time.Now().After(end) || !pause(ctx, time.Second) {
			return 0, status.Errorf(codes.Aborted, "the copy of %s is %s: try again", from.id(), state)
		}
	}
	if err != nil {
		return 0, err
	}
	if !found.copied {
		return 0, status.Errorf(codes.AlreadyExists, "%s is there and no copy", wanted.id())
	}
	if temporary {
		if err := c.ceph.RemoveSnapshot(ctx, from); err != nil && !errors.Is(err, syscall.ENOENT) {
			return 0, err
		}
	}
	// It has the size of what it is a copy of.
	if found.bytes < bytes {
		return bytes, c.ceph.Resize(ctx, wanted, bytes)
	}
	return found.bytes, fits(wanted, found.bytes, request.GetCapacityRange())
}

// fits says whether a volume that is there has a size that is asked for.
func fits(v volume, has int64, asked *csi.CapacityRange) error {
	if has < asked.GetRequiredBytes() || asked.GetLimitBytes() > 0 && has > asked.GetLimitBytes() {
		return status.Errorf(codes.AlreadyExists, "%s is there and has %d bytes", v.id(), has)
	}
	return nil
}

func (c *controller) DeleteVolume(ctx context.Context, request *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if request.GetVolumeId() == "" {
		return nil, status.Error(codes.InvalidArgument, "no volume is given")
	}
	gone, ours := parseVolume(request.GetVolumeId())
	if !ours {
		return &csi.DeleteVolumeResponse{}, nil
	}
	free, err := c.locks.take(gone.id())
	if err != nil {
		return nil, err
	}
	defer free()
	// Ceph would remove it while it is used, and leave the keys.
	users, err := c.ceph.Users(ctx, gone)
	if err == nil && len(users) > 0 {
		names := strings.Join(slices.Sorted(maps.Keys(users)), ", ")
		return nil, status.Errorf(codes.FailedPrecondition, "%s is published to %s", gone.id(), names)
	}
	if err == nil {
		err = c.ceph.Remove(ctx, gone)
	}
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return nil, answer(err)
	}
	return &csi.DeleteVolumeResponse{}, nil
}

// existing is what is known of a volume that must be there.
func (c *controller) existing(ctx context.Context, id string) (volume, details, error) {
	if id == "" {
		return volume{}, details{}, status.Error(codes.InvalidArgument, "no volume is given")
	}
	v, ours := parseVolume(id)
	if !ours {
		return v, details{}, status.Errorf(codes.NotFound, "there is no volume %q", id)
	}
	found, err := c.ceph.Details(ctx, v)
	if err == nil && found.retained {
		err = status.Errorf(codes.NotFound, "%s is deleted, and only its snapshots are left", id)
	}
	return v, found, answer(err)
}

func (c *controller) ValidateVolumeCapabilities(
	ctx context.Context, request *csi.ValidateVolumeCapabilitiesRequest,
) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if request.GetVolumeId() == "" || len(request.GetVolumeCapabilities()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "a volume and its capabilities must be given")
	}
	if _, _, err := c.existing(ctx, request.GetVolumeId()); err != nil {
		return nil, err
	}
	if _, err := usable(request.GetVolumeCapabilities()...); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: status.Convert(err).Message()}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext: request.GetVolumeContext(), VolumeCapabilities: request.GetVolumeCapabilities(), Parameters: request.GetParameters(),
	}}, nil
}

func (c *controller) ControllerPublishVolume(
	ctx context.Context, request *csi.ControllerPublishVolumeRequest,
) (*csi.ControllerPublishVolumeResponse, error) {
	node := request.GetNodeId()
	if request.GetVolumeId() == "" || node == "" {
		return nil, status.Error(codes.InvalidArgument, "a volume and a node must be given")
	}
	how, err := usable(request.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	v, found, err := c.existing(ctx, request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	nodes, err := c.nodes()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if !slices.Contains(nodes, node) {
		return nil, status.Errorf(codes.NotFound, "no node %q may have volumes", node)
	}
	free, err := c.locks.take(v.id())
	if err != nil {
		return nil, err
	}
	defer free()
	level := "rw"
	if how.readonly || request.GetReadonly() {
		level = "r"
	}
	if err := c.authorize(ctx, v, node, level, how); err != nil {
		return nil, answer(err)
	}
	return &csi.ControllerPublishVolumeResponse{PublishContext: map[string]string{
		contextEntity: "client." + v.user(node), contextFilesystem: v.filesystem, contextFolder: found.path,
	}}, nil
}

func (c *controller) authorize(ctx context.Context, v volume, node, level string, how use) error {
	user := v.user(node)
	users, err := c.ceph.Users(ctx, v)
	if err != nil {
		return err
	}
	if has, already := users[user]; already {
		if has != level {
			return status.Errorf(codes.AlreadyExists, "%s is published to %s with access %s, not %s", v.id(), node, has, level)
		}
		return refused(v, users, user, level, how)
	}
	if err := refused(v, users, user, level, how); err != nil {
		return err
	}
	if err := c.ceph.Authorize(ctx, v, user, level); err != nil {
		return err
	}
	// Another instance may have done the same for another node at the same time. Nobody has used the key yet.
	users, err = c.ceph.Users(ctx, v)
	if err != nil {
		return err
	}
	if err := refused(v, users, user, level, how); err != nil {
		return errors.Join(err, c.ceph.Deauthorize(ctx, v, user))
	}
	return nil
}

// refused says whom a volume is published to that excludes one more user.
func refused(v volume, users map[string]string, user, level string, how use) error {
	for _, other := range slices.Sorted(maps.Keys(users)) {
		if other == user {
			continue
		}
		if how.exclusive || how.writer && level == "rw" && users[other] == "rw" {
			name, ours := v.node(other)
			if !ours {
				name = "client." + other
			}
			return status.Errorf(codes.FailedPrecondition, "%s is published to %s, and can be used elsewhere when it is not any more", v.id(), name)
		}
	}
	return nil
}

// ControllerUnpublishVolume takes a node's key away and then ends its sessions. In this order: whoever has no key can't begin another
// session, and what it may still do with a ticket of the key is refused for longer than any ticket lasts. A node that has unmounted the
// volume has no session; one that is gone or cut off can't write any more when this succeeds.
func (c *controller) ControllerUnpublishVolume(
	ctx context.Context, request *csi.ControllerUnpublishVolumeRequest,
) (*csi.ControllerUnpublishVolumeResponse, error) {
	if request.GetVolumeId() == "" {
		return nil, status.Error(codes.InvalidArgument, "no volume is given")
	}
	done := &csi.ControllerUnpublishVolumeResponse{}
	v, ours := parseVolume(request.GetVolumeId())
	if !ours {
		return done, nil
	}
	free, err := c.locks.take(v.id())
	if err != nil {
		return nil, err
	}
	defer free()
	users := []string{v.user(request.GetNodeId())}
	if request.GetNodeId() == "" {
		found, err := c.ceph.Users(ctx, v)
		if err != nil && !errors.Is(err, syscall.ENOENT) {
			return nil, answer(err)
		}
		users = slices.DeleteFunc(slices.Sorted(maps.Keys(found)), func(user string) bool { _, its := v.node(user); return !its })
	} else if !nameForm.MatchString(request.GetNodeId()) {
		return done, nil
	}
	for _, user := range users {
		// Its sessions are ended even if it has no key any more: an attempt before this may have got no further.
		if err := c.ceph.Deauthorize(ctx, v, user); err != nil && !errors.Is(err, syscall.ENOENT) {
			return nil, answer(err)
		}
		if err := c.ceph.Evict(ctx, v, user); err != nil && !errors.Is(err, syscall.ENOENT) {
			return nil, answer(err)
		}
	}
	return done, nil
}

func (c *controller) ControllerExpandVolume(
	ctx context.Context, request *csi.ControllerExpandVolumeRequest,
) (*csi.ControllerExpandVolumeResponse, error) {
	if request.GetVolumeId() == "" || request.GetCapacityRange() == nil {
		return nil, status.Error(codes.InvalidArgument, "a volume and a size must be given")
	}
	bytes, err := size(request.GetCapacityRange())
	if err != nil {
		return nil, err
	}
	v, found, err := c.existing(ctx, request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	free, err := c.locks.take(v.id())
	if err != nil {
		return nil, err
	}
	defer free()
	if found.bytes >= bytes {
		return &csi.ControllerExpandVolumeResponse{CapacityBytes: found.bytes}, nil
	}
	if err := c.ceph.Resize(ctx, v, bytes); err != nil {
		return nil, answer(err)
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: bytes}, nil
}

func (c *controller) CreateSnapshot(ctx context.Context, request *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if request.GetName() == "" || request.GetSourceVolumeId() == "" {
		return nil, status.Error(codes.InvalidArgument, "a name and a volume must be given")
	}
	of, found, err := c.existing(ctx, request.GetSourceVolumeId())
	if err != nil {
		return nil, err
	}
	wanted := snapshot{of, named(request.GetName())}
	free, err := c.locks.take(of.id())
	if err != nil {
		return nil, err
	}
	defer free()
	// Ceph takes no second one of that name.
	if err := c.ceph.Snap(ctx, wanted); err != nil && !errors.Is(err, syscall.EEXIST) {
		return nil, answer(err)
	}
	taken, err := c.taken(ctx, wanted)
	if err != nil {
		return nil, answer(err)
	}
	taken.SizeBytes = found.bytes
	return &csi.CreateSnapshotResponse{Snapshot: taken}, nil
}

func (c *controller) taken(ctx context.Context, s snapshot) (*csi.Snapshot, error) {
	when, err := c.ceph.Taken(ctx, s)
	return &csi.Snapshot{SnapshotId: s.id(), SourceVolumeId: s.of.id(), CreationTime: timestamppb.New(when), ReadyToUse: true}, err
}

func (c *controller) DeleteSnapshot(ctx context.Context, request *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	if request.GetSnapshotId() == "" {
		return nil, status.Error(codes.InvalidArgument, "no snapshot is given")
	}
	if gone, ours := parseSnapshot(request.GetSnapshotId()); ours {
		// While it is copied, Ceph says to try again.
		if err := c.ceph.RemoveSnapshot(ctx, gone); err != nil && !errors.Is(err, syscall.ENOENT) {
			return nil, answer(err)
		}
	}
	return &csi.DeleteSnapshotResponse{}, nil
}

func (c *controller) ListSnapshots(ctx context.Context, request *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	found, err := c.snapshots(ctx, request)
	if err != nil {
		return nil, answer(err)
	}
	first := 0
	if token := request.GetStartingToken(); token != "" {
		if first, err = strconv.Atoi(token); err != nil || first < 0 || first > len(found) {
			return nil, status.Errorf(codes.Aborted, "%q is no token of this list: begin again", token)
		}
	}
	list := &csi.ListSnapshotsResponse{}
	last := len(found)
	if most := int(request.GetMaxEntries()); most > 0 && first+most < last {
		last = first + most
		list.NextToken = strconv.Itoa(last)
	}
	for _, one := range found[first:last] {
		taken, err := c.taken(ctx, one)
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		if err != nil {
			return nil, answer(err)
		}
		list.Entries = append(list.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: taken})
	}
	return list, nil
}

func (c *controller) snapshots(ctx context.Context, request *csi.ListSnapshotsRequest) ([]snapshot, error) {
	if id := request.GetSnapshotId(); id != "" {
		if one, ours := parseSnapshot(id); ours {
			return []snapshot{one}, nil
		}
		return nil, nil
	}
	var of []volume
	if id := request.GetSourceVolumeId(); id != "" {
		if one, ours := parseVolume(id); ours {
			of = []volume{one}
		}
	} else {
		var err error
		if of, err = c.ceph.Volumes(ctx, c.filesystem, c.group); err != nil {
			return nil, err
		}
	}
	var list []snapshot
	for _, one := range of {
		found, err := c.ceph.Snapshots(ctx, one)
		// It may be gone by now, or a copy that is not there yet.
		if err != nil && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.EAGAIN) {
			return nil, err
		}
		for _, each := range found {
			if !strings.HasPrefix(each.name, copyPrefix) {
				list = append(list, each)
			}
		}
	}
	slices.SortFunc(list, func(a, b snapshot) int { return strings.Compare(a.id(), b.id()) })
	return list, nil
}
