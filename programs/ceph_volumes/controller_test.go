// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"math"
	"strings"
	"syscall"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	alone = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	many  = csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	reads = csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	one   = csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER
)

func as(mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
	}
}

// fails wants an error of a code that says something.
func fails(t *testing.T, err error, code codes.Code, says ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Fatalf("%v, not %s", err, code)
	}
	for _, word := range says {
		if !strings.Contains(err.Error(), word) {
			t.Fatalf("%q does not say %q", err, word)
		}
	}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(answer T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
}

type place struct {
	*testing.T
	ceph *fakeCeph
	*controller
}

func newPlace(t *testing.T) place {
	ceph := newFakeCeph()
	nodes := func() ([]string, error) { return []string{"node1", "node2", "node10"}, nil }
	return place{t, ceph, &controller{ceph: ceph, filesystem: "shared", group: "kubernetes", nodes: nodes}}
}

func (p place) made(name string) string {
	p.Helper()
	answer := must[*csi.CreateVolumeResponse](p.T)(p.CreateVolume(p.Context(), &csi.CreateVolumeRequest{
		Name: name, VolumeCapabilities: []*csi.VolumeCapability{as(alone)},
	}))
	return answer.GetVolume().GetVolumeId()
}

func (p place) publish(id, node string, mode csi.VolumeCapability_AccessMode_Mode) (*csi.ControllerPublishVolumeResponse, error) {
	return p.ControllerPublishVolume(p.Context(), &csi.ControllerPublishVolumeRequest{VolumeId: id, NodeId: node, VolumeCapability: as(mode)})
}

func (p place) unpublish(id, node string) error {
	_, err := p.ControllerUnpublishVolume(p.Context(), &csi.ControllerUnpublishVolumeRequest{VolumeId: id, NodeId: node})
	return err
}

func TestAVolumeOfOneNodeIsPublishedToNoOther(t *testing.T) {
	p := newPlace(t)
	id := p.made("pvc-1")
	answer := must[*csi.ControllerPublishVolumeResponse](t)(p.publish(id, "node1", alone))
	got := answer.GetPublishContext()
	if got["entity"] != "client.node1:kubernetes:pvc-1" || got["filesystem"] != "shared" || got["folder"] == "" || len(got) != 3 {
		t.Fatal(got)
	}
	_, err := p.publish(id, "node2", alone)
	fails(t, err, codes.FailedPrecondition, id, "node1")
	// A node whose name begins like another's is another one.
	_, err = p.publish(id, "node10", alone)
	fails(t, err, codes.FailedPrecondition, "node1")
	must[*csi.ControllerPublishVolumeResponse](t)(p.publish(id, "node1", alone))
	if err := p.unpublish(id, "node1"); err != nil {
		t.Fatal(err)
	}
	must[*csi.ControllerPublishVolumeResponse](t)(p.publish(id, "node2", alone))
}

func TestWhoeverIsKnownToCephOnlyExcludesOthersToo(t *testing.T) {
	p := newPlace(t)
	id := p.made("pvc-1")
	v, _ := parseVolume(id)
	p.ceph.volumes[v].users["backup"] = "r"
	_, err := p.publish(id, "node1", alone)
	fails(t, err, codes.FailedPrecondition, "client.backup")
}

func TestOfTwoAtOnceNeitherHasAVolumeOfOneNodeThatTheOtherHas(t *testing.T) {
	p := newPlace(t)
	id := p.made("pvc-1")
	v, _ := parseVolume(id)
	p.ceph.between = func(method string) {
		// Another instance comes between the look and the key.
		if method == "Authorize" {
			p.ceph.volumes[v].users[v.user("node2")] = "rw"
		}
	}
	_, err := p.publish(id, "node1", alone)
	if err == nil || !strings.Contains(err.Error(), "node2") {
		t.Fatal(err)
	}
	if users := p.ceph.volumes[v].users; len(users) != 1 || users[v.user("node2")] == "" {
		t.Fatal(users)
	}
}

func TestVolumesOfManyNodes(t *testing.T) {
	p := newPlace(t)
	shared := p.made("shared")
	for _, node := range []string{"node1", "node2"} {
		must[*csi.ControllerPublishVolumeResponse](t)(p.publish(shared, node, many))
	}
	read := p.made("read")
	for _, node := range []string{"node1", "node2"} {
		must[*csi.ControllerPublishVolumeResponse](t)(p.publish(read, node, reads))
	}
	v, _ := parseVolume(read)
	if level := p.ceph.volumes[v].users[v.user("node1")]; level != "r" {
		t.Fatalf("readers have a key that is %q", level)
	}
	written := p.made("written")
	must[*csi.ControllerPublishVolumeResponse](t)(p.publish(written, "node1", one))
	_, err := p.publish(written, "node2", one)
	fails(t, err, codes.FailedPrecondition, "node1")
	must[*csi.ControllerPublishVolumeResponse](t)(p.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{
		VolumeId: written, NodeId: "node2", VolumeCapability: as(one), Readonly: true,
	}))
	if err := p.unpublish(shared, ""); err != nil {
		t.Fatal(err)
	}
	v, _ = parseVolume(shared)
	if users := p.ceph.volumes[v].users; len(users) != 0 {
		t.Fatalf("no node is named, so all lose it: %v", users)
	}
}

func TestANodeLosesItsKeyAndThenItsSessionsBeforeItHasSucceeded(t *testing.T) {
	p := newPlace(t)
	id := p.made("pvc-1")
	must[*csi.ControllerPublishVolumeResponse](t)(p.publish(id, "node1", alone))
	begin := len(p.ceph.calls)
	p.ceph.fails["Evict"] = syscall.ETIMEDOUT
	fails(t, p.unpublish(id, "node1"), codes.Unavailable)
	delete(p.ceph.fails, "Evict")
	if err := p.unpublish(id, "node1"); err != nil {
		t.Fatal(err)
	}
	user := "pvc-1 node1:kubernetes:pvc-1"
	want := strings.Join([]string{"Deauthorize " + user, "Evict " + user, "Deauthorize " + user, "Evict " + user}, "; ")
	if got := p.ceph.since(begin, "Deauthorize", "Evict"); got != want {
		t.Fatalf("%s\nnot\n%s", got, want)
	}
	begin = len(p.ceph.calls)
	p.ceph.fails["Deauthorize"] = syscall.EACCES
	fails(t, p.unpublish(id, "node1"), codes.PermissionDenied)
	if got := p.ceph.since(begin, "Evict"); got != "" {
		t.Fatalf("whoever still has its key was evicted: it would come back. %s", got)
	}
}

func TestAVolumeThatIsPublishedIsNotDeleted(t *testing.T) {
	p := newPlace(t)
	id := p.made("pvc-1")
	must[*csi.ControllerPublishVolumeResponse](t)(p.publish(id, "node1", alone))
	_, err := p.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
	fails(t, err, codes.FailedPrecondition, "node1")
}

func TestASnapshotOutlivesItsVolumeAndCanBeCopied(t *testing.T) {
	p := newPlace(t)
	id := p.made("pvc-1")
	taken := must[*csi.CreateSnapshotResponse](t)(p.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{
		Name: "snapshot-1", SourceVolumeId: id,
	})).GetSnapshot().GetSnapshotId()
	for range 2 {
		must[*csi.DeleteVolumeResponse](t)(p.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id}))
	}
	_, err := p.publish(id, "node1", alone)
	fails(t, err, codes.NotFound, "only its snapshots")
	list := must[*csi.ListSnapshotsResponse](t)(p.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{SnapshotId: taken}))
	if len(list.GetEntries()) != 1 || list.GetEntries()[0].GetSnapshot().GetSourceVolumeId() != id {
		t.Fatal(list)
	}
	must[*csi.CreateVolumeResponse](t)(p.CreateVolume(t.Context(), p.copyOf("pvc-2", fromSnapshot(taken))))
	for range 2 {
		must[*csi.DeleteSnapshotResponse](t)(p.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: taken}))
	}
	if v, _ := parseVolume(id); p.ceph.volumes[v] != nil {
		t.Fatal("the rest of the volume is still there")
	}
}

func fromSnapshot(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{
		Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: id}},
	}
}

func fromVolume(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: id}}}
}

func (p place) copyOf(name string, source *csi.VolumeContentSource) *csi.CreateVolumeRequest {
	return &csi.CreateVolumeRequest{
		Name: name, VolumeCapabilities: []*csi.VolumeCapability{as(alone)}, VolumeContentSource: source,
		CapacityRange: &csi.CapacityRange{RequiredBytes: 2 * defaultSize},
	}
}

func TestACopyIsAskedForUntilItIsThere(t *testing.T) {
	p := newPlace(t)
	source := p.made("pvc-1")
	p.ceph.copying = 2
	request := p.copyOf("pvc-2", fromVolume(source))
	for range 2 {
		_, err := p.CreateVolume(t.Context(), request)
		fails(t, err, codes.Aborted, "in-progress", "try again")
	}
	// One that isn't whole is given to nobody.
	for range 2 {
		answer := must[*csi.CreateVolumeResponse](t)(p.CreateVolume(t.Context(), request))
		if answer.GetVolume().GetCapacityBytes() != 2*defaultSize {
			t.Fatal(answer)
		}
	}
	if got := p.ceph.since(0, "Copy", "Snap"); got != "Snap copy-pvc-2; Copy copy-pvc-2 pvc-2" {
		t.Fatal(got)
	}
	v, _ := parseVolume(source)
	if left := p.ceph.volumes[v].snapshots; len(left) > 0 {
		t.Fatalf("what the copy was made from is still there: %v", left)
	}
}

func TestACopyThatFailedIsBegunAgain(t *testing.T) {
	p := newPlace(t)
	source := p.made("pvc-1")
	p.ceph.broken = true
	_, err := p.CreateVolume(t.Context(), p.copyOf("pvc-2", fromVolume(source)))
	fails(t, err, codes.Internal, "failed", "begun again")
	p.ceph.broken = false
	must[*csi.CreateVolumeResponse](t)(p.CreateVolume(t.Context(), p.copyOf("pvc-2", fromVolume(source))))
}

func TestWhatIsThereIsNoCopyOfSomethingElse(t *testing.T) {
	p := newPlace(t)
	source := p.made("pvc-1")
	p.made("pvc-2")
	_, err := p.CreateVolume(t.Context(), p.copyOf("pvc-2", fromVolume(source)))
	fails(t, err, codes.AlreadyExists, "no copy")
}

func TestSizesAreMultiplesThatCephTells(t *testing.T) {
	for title, c := range map[string]struct {
		least, most, want int64
		code              codes.Code
	}{
		"nothing asked":        {0, 0, defaultSize, codes.OK},
		"one byte":             {1, 0, unit, codes.OK},
		"a multiple":           {3 * unit, 3 * unit, 3 * unit, codes.OK},
		"one byte more":        {3*unit + 1, 0, 4 * unit, codes.OK},
		"no multiple between":  {unit + 1, 2*unit - 1, 0, codes.OutOfRange},
		"less than the usual":  {0, 3*unit + 5, 3 * unit, codes.OK},
		"less than a multiple": {0, unit - 1, 0, codes.OutOfRange},
		"more than there is":   {math.MaxInt64, 0, 0, codes.OutOfRange},
		"upside down":          {2, 1, 0, codes.InvalidArgument},
		"negative":             {-1, 0, 0, codes.InvalidArgument},
	} {
		got, err := size(&csi.CapacityRange{RequiredBytes: c.least, LimitBytes: c.most})
		if got != c.want || status.Code(err) != c.code {
			t.Errorf("%s: %d, %v", title, got, err)
		}
	}
}

func TestAVolumeIsNeverMadeSmaller(t *testing.T) {
	p := newPlace(t)
	id := p.made("pvc-1")
	for _, c := range [][2]int64{{unit, defaultSize}, {defaultSize + 1, defaultSize + unit}, {defaultSize, defaultSize + unit}} {
		answer := must[*csi.ControllerExpandVolumeResponse](t)(p.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{
			VolumeId: id, CapacityRange: &csi.CapacityRange{RequiredBytes: c[0]},
		}))
		if answer.GetCapacityBytes() != c[1] || answer.GetNodeExpansionRequired() {
			t.Fatal(c, answer)
		}
	}
}

func TestIdsHoldAllThatFindsAVolume(t *testing.T) {
	p := newPlace(t)
	id := p.made("pvc-1")
	if id != "1:shared:kubernetes:pvc-1" {
		t.Fatalf("an id of an earlier version must stay valid: %s", id)
	}
	// One that was made with other settings is found, too.
	p.filesystem, p.group = "other", "nomad"
	must[*csi.ControllerPublishVolumeResponse](t)(p.publish(id, "node1", alone))
	for _, odd := range []string{"", "1", "2:a:b:c", "1:a:b", "1:a:b:c:d", "1:a::c", "1:a:..:c", "1:a:b:-x", "1:a:b:c d", "1:a:b:c@s"} {
		if v, ok := parseVolume(odd); ok {
			t.Errorf("%q is %v", odd, v)
		}
	}
}

func TestNamesThatCephCanNotHaveAreDigests(t *testing.T) {
	seen := map[string]string{}
	for _, given := range []string{
		"pvc-1", "PVC_1.a", strings.Repeat("x", 128), strings.Repeat("x", 127), "my volume", "../x", "-x", "ä", "a:b", "copy-x", "--help",
	} {
		name := named(given)
		if other, taken := seen[name]; taken || !nameForm.MatchString(name) || len(name) > nameMax || strings.HasPrefix(name, copyPrefix) {
			t.Errorf("%q is %q, as %q", given, name, other)
		}
		seen[name] = given
	}
	if named("pvc-1") != "pvc-1" {
		t.Error("a name that Ceph can have is kept")
	}
}

func TestBlockVolumesAreRefused(t *testing.T) {
	p := newPlace(t)
	block := as(alone)
	block.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	_, err := p.CreateVolume(t.Context(), &csi.CreateVolumeRequest{Name: "x", VolumeCapabilities: []*csi.VolumeCapability{block}})
	fails(t, err, codes.InvalidArgument, "block", "volumeMode Filesystem")
}

func TestOneCallAtATimeWorksOnAVolume(t *testing.T) {
	p := newPlace(t)
	id := p.made("pvc-1")
	inside, proceed := make(chan bool), make(chan bool)
	p.ceph.between = func(method string) {
		if method == "Authorize" {
			inside <- true
			<-proceed
		}
	}
	done := make(chan error)
	go func() { _, err := p.publish(id, "node1", alone); done <- err }()
	<-inside
	fails(t, p.unpublish(id, "node1"), codes.Aborted, "try again")
	close(proceed)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestErrorsOfCephAreOnesOfCSI(t *testing.T) {
	p := newPlace(t)
	for number, code := range map[error]codes.Code{
		syscall.EACCES: codes.PermissionDenied, syscall.ENOSPC: codes.ResourceExhausted, syscall.EAGAIN: codes.Aborted,
		context.DeadlineExceeded: codes.Unavailable, syscall.EIO: codes.Internal,
	} {
		p.ceph.fails["Create"] = number
		_, err := p.CreateVolume(t.Context(), &csi.CreateVolumeRequest{Name: "x", VolumeCapabilities: []*csi.VolumeCapability{as(alone)}})
		fails(t, err, code)
	}
}
