// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"google.golang.org/grpc"
)

// With both, the suite asks servers that run, with a real Ceph: go test -c makes a program for a node.
var (
	controllerSocket = flag.String("controller-socket", "", "socket of a controller that runs")
	nodeSocket       = flag.String("node-socket", "", "socket of a node that runs")
)

// What the suite asks for and this driver does not do: a snapshot's name is its own in its volume only. Ceph has no list of all of
// them, and to ask for those of each volume would take minutes; names that Kubernetes gives hold a UID.
const elsewhere = "should fail when requesting to create a snapshot with already existing name and different source volume ID"

// TestSanity runs the suite of the Kubernetes storage project against the servers, over their sockets.
func TestSanity(t *testing.T) {
	folder, err := os.MkdirTemp("", "csi")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(folder)
	config := sanity.NewTestConfig()
	config.TargetPath, config.StagingPath = filepath.Join(folder, "target"), filepath.Join(folder, "staging")
	config.TestVolumeSize, config.TestVolumeExpandSize = 64*mib, 128*mib
	config.Address, config.ControllerAddress = *nodeSocket, *controllerSocket
	if *nodeSocket == "" {
		config.Address, config.ControllerAddress = filepath.Join(folder, "node.sock"), filepath.Join(folder, "controller.sock")
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		ceph, host := newFakeCeph(), newFakeHost()
		nodes := func() ([]string, error) { return []string{"node1"}, nil }
		start(t, ctx, config.ControllerAddress, func(server *grpc.Server) {
			csi.RegisterIdentityServer(server, identity{})
			csi.RegisterControllerServer(server, newController(ceph, "shared", "kubernetes", nodes))
		})
		start(t, ctx, config.Address, func(server *grpc.Server) {
			csi.RegisterIdentityServer(server, identity{})
			csi.RegisterNodeServer(server, newNode("node1", ceph, host, host))
		})
	}
	config.Address, config.ControllerAddress = "unix:"+config.Address, "unix:"+config.ControllerAddress

	suite, reporter := ginkgo.GinkgoConfiguration()
	suite.SkipStrings = append(suite.SkipStrings, elsewhere)
	gomega.RegisterFailHandler(ginkgo.Fail)
	context := sanity.GinkgoTest(&config)
	defer context.Finalize()
	ginkgo.RunSpecs(t, "CSI", suite, reporter)
}

func start(t *testing.T, ctx context.Context, socket string, register func(*grpc.Server)) {
	t.Helper()
	go func() {
		if err := serve(ctx, socket, register); err != nil {
			t.Error(err)
		}
	}()
	until(t, "the server answers at "+socket, func() bool { _, err := os.Stat(socket); return err == nil })
}
