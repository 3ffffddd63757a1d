// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
)

// pretended is a Consul that does what this program asks of one, and can be made to fail.
type pretended struct {
	mu       sync.Mutex
	index    uint64
	keys     map[string]uint64
	node     *node
	services map[string]service
	broken   int // answers so many requests with this error, -1: all
	swallow  bool
	denied   string // a name that the token may not write
	writes   int
}

func (p *pretended) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != 0 {
		p.broken--
		http.Error(w, "No cluster leader", http.StatusInternalServerError)
		return
	}
	if r.Method == http.MethodGet {
		p.list(w, r.URL.Query().Get("filter"))
		return
	}
	var operations []operation
	if err := json.NewDecoder(r.Body).Decode(&operations); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.writes++
	var results []result
	index, keys, services := p.index+1, maps.Clone(p.keys), maps.Clone(p.services)
	fail := func(at int, what string) {
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintf(w, `{"Results": null, "Errors": [{"OpIndex": %d, "What": %q}]}`, at, what)
	}
	for at, one := range operations {
		switch {
		case one.KV != nil && one.KV.Verb == "set":
			keys[one.KV.Key] = index
			results = append(results, result{KV: struct{ ModifyIndex uint64 }{index}})
		case one.KV != nil && keys[one.KV.Key] != one.KV.Index:
			fail(at, fmt.Sprintf("failed index check for key %q", one.KV.Key))
			return
		case one.Node != nil:
			p.node = &one.Node.Node
		case one.Service != nil && p.node == nil:
			fail(at, "missing node registration")
			return
		case one.Service != nil && one.Service.Service.Service == p.denied:
			fail(at, "Permission denied: token lacks permission 'service:write'")
			return
		case one.Service != nil && one.Service.Verb == "set":
			services[one.Service.Service.ID] = one.Service.Service
		case one.Service != nil:
			delete(services, one.Service.Service.ID)
		}
	}
	p.index, p.keys, p.services = index, keys, services
	if p.swallow {
		p.swallow = false
		http.Error(w, "leadership lost while committing log", http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(answer{Results: results})
}

var filter = regexp.MustCompile(`^Meta\["kubernetes-namespace"\] == "([^"]*)" and Meta\["kubernetes-service"\] == "([^"]*)"$`)

func (p *pretended) list(w io.Writer, expression string) {
	found := []service{}
	for _, one := range p.services {
		asked := filter.FindStringSubmatch(expression)
		if expression == "" || asked[1] == one.Meta[metaNamespace] && asked[2] == one.Meta[metaService] {
			found = append(found, one)
		}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"Node": p.node, "Services": found})
}

func (p *pretended) change(work func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	work()
}

// place is a Consul and an API of Kubernetes for one test.
type place struct {
	t          *testing.T
	consul     *pretended // nil where it is a real one
	address    string
	kubernetes *fake.Clientset
	catalogue  *catalogue
	ports      int
}

func newPlace(t *testing.T) *place {
	p := &pretended{keys: map[string]uint64{}, services: map[string]service{}}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	return finished(t, &place{consul: p, address: server.URL})
}

// realPlace has the program that CONSUL names, if any.
func realPlace(t *testing.T) *place {
	program := os.Getenv("CONSUL")
	if program == "" {
		t.Skip("the environment variable CONSUL names no program")
	}
	port := freePort(t)
	settings := fmt.Sprintf(`{"ports": {"http": %d, "https": -1, "grpc": -1, "grpc_tls": -1, "dns": -1, "serf_lan": %d, "serf_wan": -1, "server": %d},
		"acl": {"enabled": true, "default_policy": "deny", "tokens": {"initial_management": "%s"}}}`, port, freePort(t), freePort(t), master)
	file := filepath.Join(t.TempDir(), "consul.json")
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program, "agent", "-dev", "-bind=127.0.0.1", "-log-level=err", "-config-file="+file)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait() })
	at := &place{t: t, address: fmt.Sprintf("http://127.0.0.1:%d", port)}
	until(t, "Consul knows its management token", func() bool {
		text, err := at.admin(http.MethodGet, "/v1/acl/token/self", "")
		return err == nil && strings.Contains(text, "global-management")
	})
	rights := `node_prefix \"\" { policy = \"read\" } node \"kubernetes\" { policy = \"write\" } service_prefix \"\" { policy = \"write\" } ` +
		`service \"denied\" { policy = \"read\" } key_prefix \"ashlar/sync/\" { policy = \"write\" }`
	for path, body := range map[string]string{
		"/v1/acl/policy": `{"Name": "sync", "Rules": "` + rights + `"}`,
	} {
		if text, err := at.admin(http.MethodPut, path, body); err != nil {
			t.Fatal(text, err)
		}
	}
	if text, err := at.admin(http.MethodPut, "/v1/acl/token", `{"SecretID": "`+token+`", "Policies": [{"Name": "sync"}]}`); err != nil {
		t.Fatal(text, err)
	}
	return finished(t, at)
}

const (
	master = "00000000-0000-4000-8000-000000000001"
	token  = "00000000-0000-4000-8000-000000000002"
)

func finished(t *testing.T, p *place) *place {
	p.t = t
	p.kubernetes = fake.NewClientset()
	var err error
	if p.catalogue, err = newCatalogue(p.settings("test").Consul); err != nil {
		t.Fatal(err)
	}
	return p
}

// admin asks the real Consul as its administrator.
func (p *place) admin(method, path, body string) (string, error) {
	request, _ := http.NewRequest(method, p.address+path, strings.NewReader(body))
	request.Header.Set("X-Consul-Token", master)
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err == nil && reply.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", reply.Status)
	}
	return string(text), err
}

func (p *place) settings(identity string) settings {
	file := filepath.Join(p.t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return settings{
		Identity: identity, Status: fmt.Sprintf("127.0.0.1:%d", freePort(p.t)), Except: []string{"kube-system"}, Reserved: []string{"etcd"},
		Consul:         consulSettings{Address: p.address, Node: "kubernetes", NodeAddress: "127.0.0.1", TokenFile: file},
		Lease:          leaseSettings{"kube-system", "ashlar-consul-sync", 3},
		CompareSeconds: 600, WritesPerSecond: 1000,
	}
}

// start runs the program; the result ends it, and is its address of status.
func (p *place) start(s settings) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var client kubernetes.Interface = p.kubernetes
	go func() { done <- serve(ctx, s, client, client) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				p.t.Error(err)
			}
		})
	}
	p.t.Cleanup(stop)
	return stop
}

func (p *place) add(objects ...any) {
	p.t.Helper()
	ctx := context.Background()
	for _, object := range objects {
		var err error
		switch one := object.(type) {
		case *core.Service:
			_, err = p.kubernetes.CoreV1().Services(one.Namespace).Create(ctx, one, meta.CreateOptions{})
			if err != nil {
				_, err = p.kubernetes.CoreV1().Services(one.Namespace).Update(ctx, one, meta.UpdateOptions{})
			}
		case *discovery.EndpointSlice:
			_, err = p.kubernetes.DiscoveryV1().EndpointSlices(one.Namespace).Create(ctx, one, meta.CreateOptions{})
			if err != nil {
				_, err = p.kubernetes.DiscoveryV1().EndpointSlices(one.Namespace).Update(ctx, one, meta.UpdateOptions{})
			}
		}
		if err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *place) remove(namespace, name string) {
	if err := p.kubernetes.CoreV1().Services(namespace).Delete(context.Background(), name, meta.DeleteOptions{}); err != nil {
		p.t.Fatal(err)
	}
}

// has says what the catalogue has on our node, as "service address".
func (p *place) has() []string {
	_, found, err := p.catalogue.list(context.Background(), "")
	if err != nil {
		return []string{err.Error()}
	}
	var all []string
	for _, one := range found {
		all = append(all, one.Service+" "+one.Address)
	}
	slices.Sort(all)
	return all
}

func (p *place) becomes(want ...string) {
	p.t.Helper()
	slices.Sort(want)
	var seen []string
	if !eventually(func() bool { seen = p.has(); return slices.Equal(seen, want) }) {
		p.t.Fatalf("the catalogue has %q, not %q", seen, want)
	}
}

// events gives what was said of a Service.
func (p *place) events(namespace string) (texts []string) {
	list, _ := p.kubernetes.CoreV1().Events(namespace).List(context.Background(), meta.ListOptions{})
	for _, event := range list.Items {
		texts = append(texts, event.InvolvedObject.Name+": "+event.Message)
	}
	return texts
}

func eventually(check func() bool) bool {
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if check() {
			return true
		}
	}
	return check()
}

func until(t *testing.T, what string, check func() bool) {
	t.Helper()
	if !eventually(check) {
		t.Fatalf("in vain: %s", what)
	}
}

func freePort(t *testing.T) int {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

var http1 = map[string]int32{"http": 8080}

func each(t *testing.T, work func(t *testing.T, p *place)) {
	t.Run("pretended", func(t *testing.T) { work(t, newPlace(t)) })
	t.Run("real", func(t *testing.T) { work(t, realPlace(t)) })
}

func TestTheCatalogueFollowsServicesAndEndpoints(t *testing.T) {
	each(t, func(t *testing.T, p *place) {
		p.add(serviceOf("shop", "web", nil), sliceOf("shop", "web", "web-1", http1, 1, 2, 3), serviceOf("kube-system", "dns", nil),
			sliceOf("kube-system", "dns", "dns-1", http1, 9))
		p.start(p.settings("one"))
		p.becomes("web--shop 10.0.0.1", "web--shop 10.0.0.2", "web--shop 10.0.0.3")
		p.add(sliceOf("shop", "web", "web-1", http1, 1, 2, 3, 4, 5, 6, 7, 8), sliceOf("shop", "web", "web-2", http1, 11, 12))
		p.becomes("web--shop 10.0.0.1", "web--shop 10.0.0.2", "web--shop 10.0.0.3", "web--shop 10.0.0.4", "web--shop 10.0.0.5", "web--shop 10.0.0.6",
			"web--shop 10.0.0.7", "web--shop 10.0.0.8", "web--shop 10.0.0.11", "web--shop 10.0.0.12")
		p.add(sliceOf("shop", "web", "web-1", http1, 2, 7), sliceOf("shop", "web", "web-2", http1))
		p.becomes("web--shop 10.0.0.2", "web--shop 10.0.0.7")
		// Another name: the former one is gone.
		p.add(serviceOf("shop", "web", map[string]string{annotationName: "front", "ashlar.io/route-host": "shop.example"}))
		p.becomes("front 10.0.0.2", "front 10.0.0.7")
		_, found, _ := p.catalogue.list(context.Background(), "shop/web")
		if len(found) != 2 || found[0].Meta["route-host"] != "shop.example" || !slices.Equal(found[0].Tags, []string{"http"}) {
			t.Fatalf("%+v", found)
		}
		p.add(serviceOf("default", "plain", nil), sliceOf("default", "plain", "plain-1", http1, 20))
		p.becomes("front 10.0.0.2", "front 10.0.0.7", "plain 10.0.0.20")
		p.add(serviceOf("shop", "web", map[string]string{annotationChosen: "false"}))
		p.becomes("plain 10.0.0.20")
		p.remove("default", "plain")
		p.becomes()
	})
}

func TestWhatOthersMadeIsLeftAlone(t *testing.T) {
	each(t, func(t *testing.T, p *place) {
		ctx := context.Background()
		fence, err := p.catalogue.enter(ctx, "before")
		if err != nil {
			t.Fatal(err)
		}
		mark := map[string]string{metaSource: source, metaOwner: owner}
		stale := maps.Clone(mark)
		maps.Copy(stale, map[string]string{metaNamespace: "gone", metaService: "web"})
		operations := []operation{{Node: &nodeOperation{"set", node{"kubernetes", "127.0.0.1", mark}}}}
		for _, one := range []instance{
			{ID: "by-hand", Service: "web--shop", Address: "10.9.9.9", Port: 1},
			{ID: "shop.web.http.10.0.0.2.8080", Service: "other", Address: "10.9.9.8", Port: 1},
			{ID: "gone.web.http.10.0.0.9.8080", Service: "web--gone", Address: "10.0.0.9", Port: 8080, Meta: stale},
		} {
			operations = append(operations, p.catalogue.operation(change{instance: one}))
		}
		if err := p.catalogue.write(ctx, fence, operations); err != nil {
			t.Fatal(err)
		}
		p.add(serviceOf("shop", "web", nil), sliceOf("shop", "web", "web-1", http1, 1, 2))
		s := p.settings("one")
		s.CompareSeconds = 1
		p.start(s)
		p.becomes("other 10.9.9.8", "web--shop 10.0.0.1", "web--shop 10.9.9.9")
		until(t, "an Event says so", func() bool { return strings.Contains(fmt.Sprint(p.events("shop")), "is left alone") })
		p.remove("shop", "web")
		p.becomes("other 10.9.9.8", "web--shop 10.9.9.9")
	})
}

func TestAMachineOfThatNameIsNotTaken(t *testing.T) {
	p := newPlace(t)
	p.consul.node = &node{Node: "kubernetes", Address: "10.1.1.1"}
	p.add(serviceOf("shop", "web", nil), sliceOf("shop", "web", "web-1", http1, 1))
	s := p.settings("one")
	p.start(s)
	until(t, "it has tried", func() bool { p.consul.mu.Lock(); defer p.consul.mu.Unlock(); return p.consul.writes > 3 })
	if text := p.status(s, "/ready"); !strings.HasPrefix(text, "503 ") {
		t.Fatal(text)
	}
	p.consul.change(func() {
		if p.consul.node.Address != "10.1.1.1" || len(p.consul.services) > 0 {
			t.Error("it was written on")
		}
		p.consul.node = nil
	})
	p.becomes("web--shop 10.0.0.1")
}

func (p *place) status(s settings, path string) string {
	reply, err := http.Get("http://" + s.Status + path)
	if err != nil {
		return err.Error()
	}
	defer reply.Body.Close()
	text, _ := io.ReadAll(reply.Body)
	return fmt.Sprintf("%d %s", reply.StatusCode, text)
}

func TestANameIsHeldByOneAndTheOthersAreTold(t *testing.T) {
	each(t, func(t *testing.T, p *place) {
		front := map[string]string{annotationName: "front"}
		p.add(serviceOf("a", "web", front), sliceOf("a", "web", "web-1", http1, 1), serviceOf("b", "web", front), sliceOf("b", "web", "web-1", http1, 2),
			serviceOf("c", "odd", map[string]string{annotationName: "$(odd); {{ name }}"}), sliceOf("c", "odd", "odd-1", http1, 3),
			serviceOf("default", "consul", nil), sliceOf("default", "consul", "consul-1", http1, 5),
			serviceOf("d", "web", nil), sliceOf("d", "web", "web-1", http1, 4))
		s := p.settings("one")
		p.start(s)
		p.becomes("front 10.0.0.1", "web--d 10.0.0.4")
		until(t, "Events say why", func() bool {
			return strings.Contains(fmt.Sprint(p.events("b")), `"front" is held by the Service a/web`) &&
				strings.Contains(fmt.Sprint(p.events("c")), "is no name in DNS") &&
				strings.Contains(fmt.Sprint(p.events("default")), "belongs to hosts")
		})
		if text := p.status(s, "/metrics"); !strings.Contains(text, "refused_services 3\n") || !strings.Contains(text, "sync_instances 2\n") {
			t.Error(text)
		}
		// One that has the name by itself comes before both; when it goes, the next has it again.
		p.add(serviceOf("default", "front", nil), sliceOf("default", "front", "front-1", http1, 6))
		p.becomes("front 10.0.0.6", "web--d 10.0.0.4")
		p.remove("default", "front")
		p.becomes("front 10.0.0.1", "web--d 10.0.0.4")
		p.remove("a", "web")
		p.becomes("front 10.0.0.2", "web--d 10.0.0.4")
	})
}

func TestWhatConsulRefusesHoldsNobodyElseUp(t *testing.T) {
	each(t, func(t *testing.T, p *place) {
		if p.consul != nil {
			p.consul.denied = "denied"
		}
		p.add(serviceOf("default", "denied", nil), sliceOf("default", "denied", "denied-1", http1, 1), serviceOf("default", "web", nil), sliceOf("default", "web", "web-1", http1, 2))
		p.start(p.settings("one"))
		p.becomes("web 10.0.0.2")
		until(t, "an Event says why", func() bool {
			return strings.Contains(fmt.Sprint(p.events("default")), "denied: Consul refuses it: Permission denied")
		})
		p.add(sliceOf("default", "web", "web-1", http1, 2, 3))
		p.becomes("web 10.0.0.2", "web 10.0.0.3")
	})
}

func TestNothingIsLostWhileConsulFails(t *testing.T) {
	p := newPlace(t)
	p.add(serviceOf("shop", "web", nil), sliceOf("shop", "web", "web-1", http1, 1))
	p.start(p.settings("one"))
	p.becomes("web--shop 10.0.0.1")
	p.consul.change(func() { p.consul.broken = -1 })
	p.add(sliceOf("shop", "web", "web-1", http1, 2, 3))
	p.add(serviceOf("late", "web", nil), sliceOf("late", "web", "web-1", http1, 4))
	time.Sleep(2 * time.Second)
	p.consul.change(func() { p.consul.broken = 0 })
	p.becomes("web--late 10.0.0.4", "web--shop 10.0.0.2", "web--shop 10.0.0.3")
	// A write that was made though the answer was an error.
	p.consul.change(func() { p.consul.swallow = true })
	p.add(sliceOf("shop", "web", "web-1", http1, 5))
	p.becomes("web--late 10.0.0.4", "web--shop 10.0.0.5")
}

func TestTheCatalogueIsPutRightWhenItWasChangedOrLost(t *testing.T) {
	p := newPlace(t)
	p.add(serviceOf("shop", "web", nil), sliceOf("shop", "web", "web-1", http1, 1, 2))
	s := p.settings("one")
	s.CompareSeconds = 1
	p.start(s)
	p.becomes("web--shop 10.0.0.1", "web--shop 10.0.0.2")
	p.consul.change(func() { delete(p.consul.services, "shop.web.http.10.0.0.1.8080") })
	p.becomes("web--shop 10.0.0.1", "web--shop 10.0.0.2")
	p.consul.change(func() {
		p.consul.node, p.consul.services, p.consul.keys = nil, map[string]service{}, map[string]uint64{}
	})
	p.becomes("web--shop 10.0.0.1", "web--shop 10.0.0.2")
	if p.consul.node == nil || !marked(p.consul.node.Meta) {
		t.Fatalf("%+v", p.consul.node)
	}
}

func TestTheCatalogueIsPutRightWhenConsulGoesBackToASnapshot(t *testing.T) {
	p := newPlace(t)
	p.add(serviceOf("shop", "web", nil), sliceOf("shop", "web", "web-1", http1, 1, 2))
	p.start(p.settings("one"))
	p.becomes("web--shop 10.0.0.1", "web--shop 10.0.0.2")
	p.consul.change(func() {
		p.consul.services = map[string]service{}
		for key := range p.consul.keys {
			p.consul.keys[key] += 100
		}
	})
	p.becomes("web--shop 10.0.0.1", "web--shop 10.0.0.2")
}

func TestAFormerActiveOneCannotWrite(t *testing.T) {
	each(t, func(t *testing.T, p *place) {
		ctx := context.Background()
		former, err := p.catalogue.enter(ctx, "former")
		if err != nil {
			t.Fatal(err)
		}
		mark := map[string]string{metaSource: source, metaOwner: owner}
		if err := p.catalogue.write(ctx, former, []operation{{Node: &nodeOperation{"set", node{"kubernetes", "127.0.0.1", mark}}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := p.catalogue.enter(ctx, "now"); err != nil {
			t.Fatal(err)
		}
		late := p.catalogue.operation(change{instance: instance{ID: "x", Service: "web", Address: "10.0.0.1", Port: 80}})
		if err := p.catalogue.write(ctx, former, []operation{late}); err != errFenced {
			t.Fatal(err)
		}
		if found := p.has(); len(found) > 0 {
			t.Fatal(found)
		}
	})
}

func TestAnotherTakesOver(t *testing.T) {
	p := newPlace(t)
	p.add(serviceOf("shop", "web", nil), sliceOf("shop", "web", "web-1", http1, 1))
	first, second := p.settings("first"), p.settings("second")
	stop := p.start(first)
	p.becomes("web--shop 10.0.0.1")
	p.start(second)
	until(t, "the second stands by", func() bool { return strings.HasPrefix(p.status(second, "/ready"), "200 second stands by") })
	stop()
	p.add(sliceOf("shop", "web", "web-1", http1, 2))
	p.becomes("web--shop 10.0.0.2")
	until(t, "the second is active", func() bool { return strings.Contains(p.status(second, "/metrics"), "ashlar_consul_sync_active 1\n") })
}

func TestAnotherTakesOverWhereTheAgentIsGone(t *testing.T) {
	p := newPlace(t)
	p.add(serviceOf("shop", "web", nil), sliceOf("shop", "web", "web-1", http1, 1))
	agent := httptest.NewServer(p.consul)
	first, second := p.settings("first"), p.settings("second")
	first.Consul.Address = agent.URL
	p.start(first)
	p.becomes("web--shop 10.0.0.1")
	p.start(second)
	agent.CloseClientConnections()
	agent.Close()
	p.add(sliceOf("shop", "web", "web-1", http1, 2))
	p.becomes("web--shop 10.0.0.2")
	until(t, "the first says so", func() bool {
		return strings.HasPrefix(p.status(first, "/ready"), "503 first waits for Consul. Active: unknown.")
	})
}

func TestThousandsOfEndpointsFitIntoTransactions(t *testing.T) {
	each(t, func(t *testing.T, p *place) {
		var want []string
		annotations := map[string]string{}
		for i := range routesMax {
			annotations[fmt.Sprintf("ashlar.io/route-%d", i)] = strings.Repeat("\"", routeValueMax)
		}
		p.add(serviceOf("shop", "web", annotations))
		for part := range 4 {
			slice := sliceOf("shop", "web", fmt.Sprintf("web-%d", part), http1)
			for host := range 50 {
				address := fmt.Sprintf("10.0.%d.%d", part, host)
				slice.Endpoints = append(slice.Endpoints, discovery.Endpoint{Addresses: []string{address}})
				want = append(want, "web--shop "+address)
			}
			p.add(slice)
		}
		p.start(p.settings("one"))
		p.becomes(want...)
	})
}

func TestSettingsAreChecked(t *testing.T) {
	for text, problem := range map[string]string{
		`{}`:                           "identity is missing",
		`{"identity": "a", "nope": 1}`: "unknown field",
		`{"identity": "a", "lease": {"seconds": 1}}`: "lease.seconds must be 3 or more",
		`{`: "unexpected EOF",
	} {
		file := filepath.Join(t.TempDir(), "settings.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := read(file); err == nil || !strings.Contains(err.Error(), problem) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
