// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// The first part of every id: a later version may need other parts, and tells them apart by it.
	idVersion = "1"
	nameMax   = 64
	mib       = 1 << 20
	// Ceph tells the size of a volume in these units.
	unit        = 4 * mib
	defaultSize = 1024 * mib
	// Snapshots of this prefix are made to copy a volume and go afterwards.
	copyPrefix = "copy-"
)

// volume is a subvolume of Ceph.
type volume struct{ filesystem, group, name string }

type snapshot struct {
	of   volume
	name string
}

func (v volume) id() string {
	return strings.Join([]string{idVersion, v.filesystem, v.group, v.name}, ":")
}

func (s snapshot) id() string { return s.of.id() + "@" + s.name }

// user is the name in Ceph by which a node uses the volume.
func (v volume) user(node string) string { return node + ":" + v.group + ":" + v.name }

// node is the node that a name in Ceph belongs to, if it is one of this volume.
func (v volume) node(user string) (string, bool) {
	return strings.CutSuffix(user, ":"+v.group+":"+v.name)
}

func parseVolume(id string) (volume, bool) {
	parts := strings.Split(id, ":")
	if len(parts) != 4 || parts[0] != idVersion {
		return volume{}, false
	}
	for _, part := range parts[1:] {
		if !nameForm.MatchString(part) {
			return volume{}, false
		}
	}
	return volume{parts[1], parts[2], parts[3]}, true
}

func parseSnapshot(id string) (snapshot, bool) {
	of, name, _ := strings.Cut(id, "@")
	found, ok := parseVolume(of)
	return snapshot{found, name}, ok && nameForm.MatchString(name)
}

// named is the name in Ceph for one that an orchestrator gave: the same, where Ceph can have it.
func named(given string) string {
	if len(given) <= nameMax && nameForm.MatchString(given) && !strings.HasPrefix(given, copyPrefix) {
		return given
	}
	digest := sha256.Sum256([]byte(given))
	return "sha256-" + hex.EncodeToString(digest[:])[:40]
}

// size is the quota for a range of sizes.
func size(asked *csi.CapacityRange) (int64, error) {
	least, most := asked.GetRequiredBytes(), asked.GetLimitBytes()
	if least < 0 || most < 0 || most > 0 && least > most {
		return 0, status.Errorf(codes.InvalidArgument, "a volume can't have at least %d and at most %d bytes", least, most)
	}
	if least == 0 {
		least = defaultSize
		if most > 0 {
			least = min(least, max(most/unit*unit, 1))
		}
	}
	if least > 1<<62 {
		return 0, status.Errorf(codes.OutOfRange, "a volume can't have %d bytes", least)
	}
	rounded := (least + unit - 1) / unit * unit
	if most > 0 && rounded > most {
		return 0, status.Errorf(codes.OutOfRange, "sizes are multiples of %d MiB, none is between %d and %d bytes", unit/mib, least, most)
	}
	return rounded, nil
}

// use is how a volume is meant to be used.
type use struct {
	exclusive bool // by one node
	writer    bool // whoever writes is the only one that does
	readonly  bool
}

// usable says how volumes with these capabilities are used, or why they can't be.
func usable(asked ...*csi.VolumeCapability) (use, error) {
	var how use
	for _, one := range asked {
		if one.GetBlock() != nil {
			return how, status.Error(codes.InvalidArgument, "block volumes aren't supported: use volumeMode Filesystem")
		}
		if one.GetMount() == nil {
			return how, status.Error(codes.InvalidArgument, "a capability names no access type: mount is supported")
		}
		switch mode := one.GetAccessMode().GetMode(); mode {
		case csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
			csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER:
			how.exclusive = true
		case csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY:
			how.exclusive, how.readonly = true, true
		case csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY:
			how.readonly = true
		case csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER:
			how.writer = true
		case csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER:
		default:
			return how, status.Errorf(codes.InvalidArgument, "the access mode %s isn't supported", mode)
		}
	}
	if len(asked) == 0 || asked[0] == nil {
		return how, status.Error(codes.InvalidArgument, "no volume capability is given")
	}
	return how, nil
}
