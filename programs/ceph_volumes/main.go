// SPDX-License-Identifier: Apache-2.0

// Command ceph-volumes is a CSI driver whose volumes are subvolumes of a file system of Ceph.
//
// The controller makes volumes and decides which node may use which, by a key of Ceph for each volume and node. The node mounts them.
// Both keep no state: what Ceph and the mounts of the host say is the state.
//
// controller.go and node.go are the services of CSI, volume.go has names and sizes, ceph.go talks to Ceph, mounts.go to the host,
// registration.go to the kubelet.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	driverName = "ceph.ashlar.io"
	// The version of the driver's interface, as the orchestrator shows it; the program's own is a digest of its source.
	driverVersion = "1"
	usage         = "usage: ceph-volumes controller|node [options]; ceph-volumes controller -help lists them"
)

var (
	// Of nodes too: what separates the parts of an id is in none of them.
	nameForm   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	entityForm = regexp.MustCompile(`^client\.[A-Za-z0-9._-]+$`)
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal(usage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1], os.Args[2:]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, role string, arguments []string) error {
	options := flag.NewFlagSet("ceph-volumes "+role, flag.ExitOnError)
	socket := options.String("socket", "", "socket to serve CSI on")
	entity := options.String("entity", "", "Ceph's name of this program, such as client.volumes")
	keyring := options.String("keyring", "", "file with its key")
	switch role {
	case "controller":
		filesystem := options.String("filesystem", "", "file system of Ceph that new volumes are in")
		group := options.String("group", "", "subvolume group that new volumes are in; it must be there")
		nodes := options.String("nodes", "", "JSON file with the list of nodes that may have volumes")
		_ = options.Parse(arguments)
		if err := valid(map[string]string{"filesystem": *filesystem, "group": *group}, nameForm); err != nil {
			return err
		}
		if err := valid(map[string]string{"entity": *entity}, entityForm); err != nil {
			return err
		}
		service := newController(command{*entity, *keyring}, *filesystem, *group, func() ([]string, error) { return listed(*nodes) })
		return serve(ctx, *socket, func(server *grpc.Server) {
			csi.RegisterIdentityServer(server, identity{})
			csi.RegisterControllerServer(server, service)
		})
	case "node":
		name := options.String("name", "", "name of this node")
		runtime := options.String("runtime", "/run/ceph-volumes", "folder for keys of volumes while they are mounted")
		kubelet := options.String("registration", "", "socket at which the kubelet asks for the driver; nothing registers it if empty")
		_ = options.Parse(arguments)
		if err := valid(map[string]string{"name": *name}, nameForm); err != nil {
			return err
		}
		if err := valid(map[string]string{"entity": *entity}, entityForm); err != nil {
			return err
		}
		service := newNode(*name, command{*entity, *keyring}, host{}, units{*runtime})
		ctx, end := context.WithCancelCause(ctx)
		defer end(nil)
		if *kubelet != "" {
			registrar := &registrar{socket: *socket, done: filepath.Join(*runtime, "registered"), end: end}
			_ = os.Remove(registrar.done)
			go func() {
				end(serve(ctx, *kubelet, func(server *grpc.Server) { registration.RegisterRegistrationServer(server, registrar) }))
			}()
		}
		err := serve(ctx, *socket, func(server *grpc.Server) {
			csi.RegisterIdentityServer(server, identity{})
			csi.RegisterNodeServer(server, service)
		})
		if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
			err = cause
		}
		return err
	default:
		return errors.New(usage)
	}
}

func valid(values map[string]string, form *regexp.Regexp) error {
	for name, value := range values {
		if !form.MatchString(value) {
			return fmt.Errorf("-%s is %q, it must match %s", name, value, form)
		}
	}
	return nil
}

// listed are the names in a JSON file. It is read whenever it is needed, so that a new node restarts nothing.
func listed(path string) ([]string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var names []string
	if err := json.Unmarshal(content, &names); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return names, nil
}

// serve answers on a socket until the context ends.
func serve(ctx context.Context, socket string, register func(*grpc.Server)) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return err
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(logged))
	register(server)
	go func() {
		<-ctx.Done()
		// What has begun may end: a key that is taken away is followed by an eviction.
		server.GracefulStop()
	}()
	return server.Serve(listener)
}

// logged says what failed. What was asked for isn't logged, since other drivers' requests hold secrets.
func logged(ctx context.Context, request any, call *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	answer, err := handler(ctx, request)
	if err != nil {
		log.Printf("%s: %v", filepath.Base(call.FullMethod), err)
	}
	return answer, err
}

// identity is the service by which an orchestrator learns what this is.
type identity struct {
	csi.UnimplementedIdentityServer
}

func (identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: driverName, VendorVersion: driverVersion}, nil
}

// GetPluginCapabilities are those of controller and node together.
func (identity) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{
		{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE}}},
		{Type: &csi.PluginCapability_VolumeExpansion_{
			VolumeExpansion: &csi.PluginCapability_VolumeExpansion{Type: csi.PluginCapability_VolumeExpansion_ONLINE},
		}},
	}}, nil
}

func (identity) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

// locks let one call at a time work on a volume. An orchestrator tries again.
type locks struct {
	mu   sync.Mutex
	held map[string]bool
}

func (l *locks) take(volume string) (func(), error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[volume] {
		return nil, status.Errorf(codes.Aborted, "another call works on %s: try again", volume)
	}
	if l.held == nil {
		l.held = map[string]bool{}
	}
	l.held[volume] = true
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.held, volume)
	}, nil
}
