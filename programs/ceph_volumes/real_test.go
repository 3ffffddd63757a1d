// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
)

var nodeUnit = flag.String("node-unit", "", "unit of the node that runs, to be restarted")

// TestANodeThatLostAVolumeWritesNoMore needs servers that run, and a real Ceph.
func TestANodeThatLostAVolumeWritesNoMore(t *testing.T) {
	if *nodeSocket == "" || *controllerSocket == "" {
		t.Skip("-controller-socket and -node-socket are not given")
	}
	connected := func(socket string) *grpc.ClientConn {
		return must[*grpc.ClientConn](t)(grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials())))
	}
	controller, node := csi.NewControllerClient(connected(*controllerSocket)), csi.NewNodeClient(connected(*nodeSocket))
	name := must[*csi.NodeGetInfoResponse](t)(node.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})).GetNodeId()
	made := must[*csi.CreateVolumeResponse](t)(controller.CreateVolume(t.Context(), &csi.CreateVolumeRequest{
		Name: "fencing", VolumeCapabilities: []*csi.VolumeCapability{as(alone)},
		CapacityRange: &csi.CapacityRange{RequiredBytes: 16 * mib},
	}))
	// Not the test's own folder, which is removed with whatever is still mounted in it.
	folder := must[string](t)(os.MkdirTemp("", "csi"))
	id := made.GetVolume().GetVolumeId()
	staged, target := filepath.Join(folder, "staged"), filepath.Join(folder, "pod")
	take := func() {
		must[*csi.NodeUnpublishVolumeResponse](t)(node.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{
			VolumeId: id, TargetPath: target,
		}))
		must[*csi.NodeUnstageVolumeResponse](t)(node.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{
			VolumeId: id, StagingTargetPath: staged,
		}))
	}
	lose := func() {
		must[*csi.ControllerUnpublishVolumeResponse](t)(controller.ControllerUnpublishVolume(t.Context(),
			&csi.ControllerUnpublishVolumeRequest{VolumeId: id, NodeId: name}))
	}
	get := func() {
		published := must[*csi.ControllerPublishVolumeResponse](t)(controller.ControllerPublishVolume(t.Context(),
			&csi.ControllerPublishVolumeRequest{VolumeId: id, NodeId: name, VolumeCapability: as(alone)}))
		must[*csi.NodeStageVolumeResponse](t)(node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{
			VolumeId: id, StagingTargetPath: staged, VolumeCapability: as(alone), PublishContext: published.GetPublishContext(),
		}))
		must[*csi.NodePublishVolumeResponse](t)(node.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{
			VolumeId: id, StagingTargetPath: staged, TargetPath: target, VolumeCapability: as(alone), PublishContext: published.GetPublishContext(),
		}))
	}
	write := func(text string) error {
		file, err := os.OpenFile(filepath.Join(target, "file"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		defer file.Close()
		if _, err := file.WriteString(text); err != nil {
			return err
		}
		return file.Sync()
	}
	get()
	if err := write("one "); err != nil {
		t.Fatal(err)
	}
	systemctl := func(words ...string) {
		if out, err := exec.Command("systemctl", words...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if *nodeUnit != "" {
		systemctl("restart", *nodeUnit)
		if err := write("two "); err != nil {
			t.Fatalf("the mount went with the driver: %v", err)
		}
		until(t, "the driver answers again", func() bool {
			_, err := node.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
			return err == nil
		})
		systemctl("kill", "--signal", "KILL", "ceph-volume@*.service")
		until(t, "the client is gone", func() bool { return write("lost ") != nil })
		get()
	} else if err := write("two "); err != nil {
		t.Fatal(err)
	}
	// As if the node could not be reached: nobody takes the mount away.
	lose()
	until(t, "the node can't write", func() bool { return write("lost ") != nil })
	_, err := node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{
		VolumeId: id, StagingTargetPath: staged, VolumeCapability: as(alone), PublishContext: map[string]string{
			contextEntity: "client." + name + ":kubernetes:" + strings.Split(id, ":")[3], contextFilesystem: "shared", contextFolder: "/",
		},
	})
	fails(t, err, codes.FailedPrecondition, "no key")
	get()
	if err := write("three"); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(target, "file")); err != nil || string(text) != "one two three" {
		t.Fatalf("%q, %v", text, err)
	}
	take()
	lose()
	if err := os.Remove(staged); err != nil {
		t.Error(err)
	}
	if err := os.Remove(folder); err != nil {
		t.Error(err)
	}
	must[*csi.DeleteVolumeResponse](t)(controller.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id}))
}
