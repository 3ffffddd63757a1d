// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const single = csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER

// machine is a node with a volume that is published to it.
type machine struct {
	place
	*node
	host           *fakeHost
	id, staged     string
	published      map[string]string
	pod1, pod2     string
	client, entity string
}

func newMachine(t *testing.T) machine {
	p, host, folder := newPlace(t), newFakeHost(), t.TempDir()
	id := p.made("pvc-1")
	answer := must[*csi.ControllerPublishVolumeResponse](t)(p.publish(id, "node1", alone))
	return machine{
		p, newNode("node1", p.ceph, host, host), host, id, filepath.Join(folder, "staged"), answer.GetPublishContext(),
		filepath.Join(folder, "pod1", "mount"), filepath.Join(folder, "pod2", "mount"),
		"shared:kubernetes:pvc-1", "client.node1:kubernetes:pvc-1",
	}
}

func (m machine) stageIt(ctx context.Context) error {
	_, err := m.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: m.id, StagingTargetPath: m.staged, VolumeCapability: as(alone), PublishContext: m.published,
	})
	return err
}

func (m machine) unstageIt(ctx context.Context) error {
	_, err := m.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: m.id, StagingTargetPath: m.staged})
	return err
}

func (m machine) publishAt(target string, mode csi.VolumeCapability_AccessMode_Mode, readonly bool) error {
	_, err := m.NodePublishVolume(m.Context(), &csi.NodePublishVolumeRequest{
		VolumeId: m.id, StagingTargetPath: m.staged, TargetPath: target, VolumeCapability: as(mode), PublishContext: m.published,
		Readonly: readonly,
	})
	return err
}

func (m machine) mustSucceed(steps ...error) {
	m.Helper()
	for _, err := range steps {
		if err != nil {
			m.Fatal(err)
		}
	}
}

func TestAVolumeIsMountedByItsOwnKeyOnceForAllPods(t *testing.T) {
	m := newMachine(t)
	m.mustSucceed(m.stageIt(t.Context()), m.stageIt(t.Context()))
	m.mustSucceed(m.publishAt(m.pod1, alone, false), m.publishAt(m.pod2, alone, true))
	client := m.host.running[m.client]
	if client.key != "key of "+m.entity || client.entity != m.entity || m.host.devices != 1 {
		t.Fatal(client, m.host.devices)
	}
	if m.host.points[m.pod1] != m.host.points[m.staged] || m.host.readers[m.pod1] || !m.host.readers[m.pod2] {
		t.Fatal(m.host.points, m.host.readers)
	}
}

func TestWhatIsPublishedToAnotherNodeIsNotMounted(t *testing.T) {
	m := newMachine(t)
	m.published["entity"] = "client.node2:kubernetes:pvc-1"
	fails(t, m.stageIt(t.Context()), codes.InvalidArgument, "not published", "node1")
	m.published["entity"] = m.entity
	m.mustSucceed(m.unpublish(m.id, "node1"))
	fails(t, m.stageIt(t.Context()), codes.FailedPrecondition, "no key")
	if len(m.host.running) > 0 || len(m.host.points) > 0 {
		t.Fatal(m.host.running, m.host.points)
	}
}

func TestAStaleMountIsMadeAnew(t *testing.T) {
	for title, again := range map[string]func(machine) error{
		"when it is staged":                 func(m machine) error { return m.stageIt(m.Context()) },
		"when it is published to a new pod": func(m machine) error { return m.publishAt(m.pod2, alone, false) },
	} {
		t.Run(title, func(t *testing.T) {
			m := newMachine(t)
			m.mustSucceed(m.stageIt(t.Context()), m.publishAt(m.pod1, alone, false))
			m.host.die(m.staged)
			begin := len(m.host.killed)
			m.mustSucceed(again(m), m.publishAt(m.pod2, alone, false))
			if m.host.devices != 2 || len(m.host.killed) != begin+1 || m.host.points[m.pod2] != m.host.points[m.staged] {
				t.Fatal(m.host.devices, m.host.killed, m.host.points)
			}
			// The first pod's is replaced when it starts again.
			m.mustSucceed(m.publishAt(m.pod1, alone, false))
			if m.host.points[m.pod1] != m.host.points[m.staged] {
				t.Fatal(m.host.points)
			}
		})
	}
}

func TestAStaleMountGoes(t *testing.T) {
	m := newMachine(t)
	m.mustSucceed(m.stageIt(t.Context()), m.publishAt(m.pod1, alone, false))
	m.host.die(m.staged)
	_, err := m.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: m.id, TargetPath: m.pod1})
	m.mustSucceed(err, m.unstageIt(t.Context()), m.unstageIt(t.Context()))
	if len(m.host.points) > 0 || len(m.host.running) > 0 {
		t.Fatal(m.host.points, m.host.running)
	}
	if _, err := os.Stat(m.pod1); !os.IsNotExist(err) {
		t.Fatalf("the folder of the pod is still there: %v", err)
	}
}

func TestAVolumeIsUnstagedWhenItsDataIsWritten(t *testing.T) {
	m := newMachine(t)
	m.mustSucceed(m.stageIt(t.Context()))
	m.host.keeps = true
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.unstageIt(ctx) }()
	until(t, "nothing is mounted", func() bool { list, _ := m.host.List(); return len(list) == 0 })
	cancel()
	fails(t, <-done, codes.Unavailable, "may still write", "journalctl")
	m.mustSucceed(m.host.Kill(t.Context(), m.client), m.unstageIt(t.Context()))
}

func TestAClientThatEndsIsAnErrorThatSaysWhereToLook(t *testing.T) {
	m := newMachine(t)
	m.host.dies = true
	fails(t, m.stageIt(t.Context()), codes.Internal, "journalctl -u 'ceph-volume@shared:kubernetes:pvc-1'", "node1")
}

func TestAMountThatWaitsForCephIsAskedOnceAndLeftAlone(t *testing.T) {
	m := newMachine(t)
	m.mustSucceed(m.stageIt(t.Context()))
	m.host.silent = make(chan struct{})
	stats := func(ctx context.Context) error {
		_, err := m.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: m.id, VolumePath: m.staged})
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	fails(t, stats(ctx), codes.Unavailable, m.staged)
	// At once, since one question is open.
	fails(t, stats(t.Context()), codes.Unavailable, m.staged)
	fails(t, m.unstageIt(t.Context()), codes.Unavailable)
	if m.host.devices != 1 || len(m.host.points) != 1 {
		t.Fatal("a volume that will answer again was taken away")
	}
	close(m.host.silent)
	until(t, "it answers again", func() bool { return stats(t.Context()) == nil })
}

func TestOnePodHasAVolumeOfOnePod(t *testing.T) {
	m := newMachine(t)
	m.mustSucceed(m.stageIt(t.Context()), m.publishAt(m.pod1, single, false), m.publishAt(m.pod1, single, false))
	fails(t, m.publishAt(m.pod2, single, false), codes.FailedPrecondition, m.pod1)
}

func TestTheKubeletIsToldOfTheDriver(t *testing.T) {
	ctx, end := context.WithCancelCause(t.Context())
	done := filepath.Join(t.TempDir(), "registered")
	here := &registrar{socket: "/run/csi.sock", done: done, end: end}
	info := must[*registration.PluginInfo](t)(here.GetInfo(ctx, nil))
	if info.GetType() != "CSIPlugin" || info.GetName() != driverName || info.GetEndpoint() != "/run/csi.sock" {
		t.Fatal(info)
	}
	told := must[*registration.RegistrationStatusResponse](t)
	told(here.NotifyRegistrationStatus(ctx, &registration.RegistrationStatus{PluginRegistered: true}))
	if _, err := os.Stat(done); err != nil || ctx.Err() != nil {
		t.Fatal(err, ctx.Err())
	}
	told(here.NotifyRegistrationStatus(ctx, &registration.RegistrationStatus{Error: "no such API"}))
	if cause := context.Cause(ctx); cause == nil || cause.Error() != "the kubelet does not register the driver: no such API" {
		t.Fatal(cause)
	}
}
