// SPDX-License-Identifier: Apache-2.0

// Command consul-sync keeps the Services of Kubernetes and their ready endpoints in the catalogue of Consul.
//
// It runs on several nodes, one of which is active. That one follows Kubernetes by watches and writes what differs, a Service at a time and
// all its instances at once, on one node of the catalogue that no machine has. What it has made bears its mark; nothing else is touched.
// Whoever becomes active writes a key first, and each write asks that this key is still the one it wrote: a former one that
// does not know yet that it is no longer active can't write.
//
// rules.go decides, consul.go talks to Consul, term.go does the work of the active one, status.go tells how it goes.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// settings are what the file named by -settings holds.
type settings struct {
	Identity        string         `json:"identity"`   // name of this node, unique among all that run this
	Kubeconfig      string         `json:"kubeconfig"` // file
	Consul          consulSettings `json:"consul"`
	Status          string         `json:"status"` // address:port of /ready and /metrics
	Lease           leaseSettings  `json:"lease"`
	OnlyAnnotated   bool           `json:"only_annotated"`
	Namespaces      []string       `json:"namespaces"`
	Except          []string       `json:"namespaces_except"`
	Reserved        []string       `json:"reserved_names"`
	CompareSeconds  int            `json:"compare_seconds"`
	WritesPerSecond int            `json:"writes_per_second"`
}

type consulSettings struct {
	Address     string `json:"address"`
	Authority   string `json:"authority"`
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
	TokenFile   string `json:"token_file"`
	Node        string `json:"node"`         // the node of the catalogue that everything is written on
	NodeAddress string `json:"node_address"` // its address; no machine has to have it
}

type leaseSettings struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Seconds   int    `json:"seconds"` // after so long without a sign of the active one another takes over
}

func read(path string) (settings, error) {
	s := settings{
		Status:         "127.0.0.1:8502",
		Except:         []string{meta.NamespaceSystem},
		Lease:          leaseSettings{meta.NamespaceSystem, "ashlar-consul-sync", 6},
		Consul:         consulSettings{Address: "https://127.0.0.1:8501", Node: source, NodeAddress: "127.0.0.1"},
		CompareSeconds: 600, WritesPerSecond: 100,
	}
	file, err := os.Open(path)
	if err != nil {
		return s, err
	}
	defer file.Close()
	decoder := json.NewDecoder(file)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case s.Identity == "":
		err = errors.New("identity is missing: the name of this node")
	case s.Consul.Node == "" || s.Consul.NodeAddress == "":
		err = errors.New("consul.node and consul.node_address must not be empty")
	case s.Lease.Seconds < 3, s.CompareSeconds < 1, s.WritesPerSecond < 1:
		err = errors.New("lease.seconds must be 3 or more, compare_seconds and writes_per_second 1 or more")
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return s, err
}

func main() {
	log.SetFlags(0)
	quieten()
	path := flag.String("settings", "/etc/consul-sync/settings.json", "JSON file of settings")
	flag.Parse()
	s, err := read(*path)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	config, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	config.QPS, config.Burst = 50, 100
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	// The lease has a client of its own, which does not wait behind others' requests and gives up soon.
	config.Timeout = s.Lease.renewal() / 2
	leases, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	if err := serve(ctx, s, client, leases); err != nil {
		log.Fatal(err)
	}
}

// quieten has client-go say what goes wrong and nothing else, in lines like ours.
func quieten() {
	flags := flag.NewFlagSet("klog", flag.PanicOnError)
	klog.InitFlags(flags)
	for name, value := range map[string]string{"logtostderr": "false", "stderrthreshold": "FATAL", "one_output": "true", "skip_headers": "true"} {
		_ = flags.Set(name, value)
	}
	klog.SetOutputBySeverity("INFO", io.Discard)
	klog.SetOutputBySeverity("WARNING", os.Stderr)
	klog.SetOutputBySeverity("ERROR", os.Stderr)
}

func (l leaseSettings) renewal() time.Duration { return time.Duration(l.Seconds) * time.Second * 2 / 3 }

// serve works until the context ends.
func serve(ctx context.Context, s settings, client, leases kubernetes.Interface) error {
	consul, err := newCatalogue(s.Consul)
	if err != nil {
		return err
	}
	told := newTold(client, s.Identity)
	here := &member{settings: s, catalogue: consul, told: told, figures: &figures{}}
	if err := here.figures.listen(ctx, s.Status, here); err != nil {
		return err
	}
	go told.run(ctx)

	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(slim))
	services, slices := factory.Core().V1().Services(), factory.Discovery().V1().EndpointSlices()
	if err := slices.Informer().AddIndexers(cache.Indexers{bySlice: sliceKey}); err != nil {
		return err
	}
	here.sight = sight{services.Lister(), slices.Informer().GetIndexer()}
	follow(services.Informer(), func(object any) ([]string, error) {
		key, err := cache.MetaNamespaceKeyFunc(object)
		return []string{key}, err
	}, here)
	follow(slices.Informer(), sliceKey, here)
	factory.Start(ctx.Done())
	here.figures.state.Store("waits for the API of Kubernetes")
	for _, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return nil
		}
	}
	return here.campaign(ctx, leases)
}

// follow has every Service looked at that something happens to.
func follow(informer cache.SharedIndexInformer, keys cache.IndexFunc, here *member) {
	tell := func(object any) {
		if gone, is := object.(cache.DeletedFinalStateUnknown); is {
			object = gone.Obj
		}
		found, _ := keys(object)
		for _, key := range found {
			here.look(key)
		}
	}
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: tell, DeleteFunc: tell,
		// An EndpointSlice may have been of another Service before.
		UpdateFunc: func(before, now any) { tell(before); tell(now) },
	})
}

// slim leaves out what nobody here reads, so that thousands of endpoints cost little.
func slim(object any) (any, error) {
	if accessor, is := object.(meta.Object); is {
		accessor.SetManagedFields(nil)
		accessor.SetOwnerReferences(nil)
	}
	switch one := object.(type) {
	case *core.Service:
		one.Status = core.ServiceStatus{}
		delete(one.Annotations, core.LastAppliedConfigAnnotation)
	case *discovery.EndpointSlice:
		one.Annotations = nil
		for i := range one.Endpoints {
			kept := &one.Endpoints[i]
			kept.TargetRef, kept.NodeName, kept.Zone, kept.Hints, kept.Hostname, kept.DeprecatedTopology = nil, nil, nil, nil, nil, nil
		}
	}
	return object, nil
}

// campaign takes part in the choice of the active one, again and again, as long as Consul can be reached from here.
func (m *member) campaign(ctx context.Context, leases kubernetes.Interface) error {
	for ctx.Err() == nil {
		if !m.reached(ctx) {
			continue
		}
		m.figures.state.Store("stands by")
		mine, end := context.WithCancelCause(ctx)
		var led atomic.Bool
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta:  meta.ObjectMeta{Namespace: m.settings.Lease.Namespace, Name: m.settings.Lease.Name},
				Client:     leases.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: m.settings.Identity},
			},
			LeaseDuration:   time.Duration(m.settings.Lease.Seconds) * time.Second,
			RenewDeadline:   m.settings.Lease.renewal(),
			RetryPeriod:     time.Duration(m.settings.Lease.Seconds) * time.Second / 6,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(active context.Context) {
					led.Store(true)
					m.lead(active, end)
				},
				OnStoppedLeading: func() {},
				OnNewLeader: func(name string) {
					m.figures.active.Store(name)
					if name != m.settings.Identity {
						log.Printf("Standing by: %s is active.", name)
					}
				},
			},
		})
		if err != nil {
			end(nil)
			return err
		}
		elector.Run(mine)
		end(errors.New("the lease is lost"))
		// What was begun may still be at a write.
		m.leading.Lock()
		m.leading.Unlock()
		if led.Load() {
			log.Printf("No longer active: %v.", context.Cause(mine))
			m.figures.state.Store("was active until just now")
			m.figures.active.Store("unknown")
			// Whoever else stands by is quicker.
			wait(ctx, 2*time.Second)
		}
	}
	return nil
}

// reached says whether Consul answers this node; if not, only after a moment.
func (m *member) reached(ctx context.Context) bool {
	_, _, err := m.catalogue.list(ctx, "none/none")
	if err == nil {
		m.lastProblem = ""
		return true
	}
	if problem := err.Error(); ctx.Err() == nil && problem != m.lastProblem {
		log.Printf("Consul can't be reached from here, another may be active: %v", err)
		m.lastProblem = problem
	}
	m.figures.state.Store("waits for Consul")
	wait(ctx, time.Second)
	return false
}

// lead does the work of the active one until the context ends, or ends it itself.
func (m *member) lead(ctx context.Context, end context.CancelCauseFunc) {
	m.leading.Lock()
	defer m.leading.Unlock()
	if ctx.Err() != nil {
		return
	}
	now := newTerm(m.sight, m.settings.rules(), m.catalogue, m.told, m.figures, m.settings.WritesPerSecond, end)
	m.term.Store(now)
	defer m.term.Store(nil)
	m.figures.state.Store("takes over")
	for start := time.Now(); ; wait(ctx, firstRetry) {
		err := now.begin(ctx, m.settings.Identity, m.settings.Consul.NodeAddress)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return
		}
		if time.Since(start) > patience || errors.Is(err, errFenced) {
			end(fmt.Errorf("the catalogue can't be taken over: %w", err))
			return
		}
	}
	m.figures.state.Store(stateActive)
	now.run(ctx, time.Duration(m.settings.CompareSeconds)*time.Second)
}

func (s settings) rules() rules {
	return rules{OnlyAnnotated: s.OnlyAnnotated, Namespaces: s.Namespaces, Except: s.Except, Reserved: append([]string{"consul"}, s.Reserved...)}
}

func wait(ctx context.Context, long time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(long):
	}
}
