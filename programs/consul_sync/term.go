// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

const (
	workers = 4
	// Failures of Consul are tried again after these; of one that refuses a Service for good, after a minute.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 2 * time.Second
	slowRetry  = time.Minute
	// After so long without anything that succeeds another node may have more luck: where Consul answers that it can't, it may be choosing a leader;
	// where nothing answers, the agent of this node is gone.
	patience = 10 * time.Second
	silence  = 3 * time.Second
	// How often it is asked whether the catalogue is still the one that was taken over.
	guardEvery = 5 * time.Second
)

// sight is what Kubernetes has, held in memory by watches.
type sight struct {
	services corelisters.ServiceLister
	slices   cache.Indexer // by bySlice
}

const bySlice = "service"

// sliceKey is the Service (namespace/name) that an EndpointSlice is of.
func sliceKey(object any) ([]string, error) {
	slice, is := object.(*discovery.EndpointSlice)
	if !is || slice.Labels[discovery.LabelServiceName] == "" {
		return nil, nil
	}
	return []string{slice.Namespace + "/" + slice.Labels[discovery.LabelServiceName]}, nil
}

func (s sight) service(key string) *core.Service {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return nil
	}
	service, err := s.services.Services(namespace).Get(name)
	if err != nil {
		return nil
	}
	return service
}

func (s sight) slicesOf(key string) (found []*discovery.EndpointSlice) {
	objects, _ := s.slices.ByIndex(bySlice, key)
	for _, object := range objects {
		found = append(found, object.(*discovery.EndpointSlice))
	}
	return found
}

// teller makes refusals known: in the log, and on the Service.
type teller interface {
	tell(key, text string)
}

// term is one time of being active: what this process knows and does from entering until it ends.
type term struct {
	sight     sight
	rules     rules
	catalogue *catalogue
	teller    teller
	figures   *figures
	queue     workqueue.TypedRateLimitingInterface[string]
	limiter   *rate.Limiter
	fence     uint64
	end       context.CancelCauseFunc
	silent    atomic.Bool  // it was the agent itself that did not answer last
	failing   atomic.Int64 // since when (nanoseconds) nothing has succeeded; 0: it does

	mu      sync.Mutex
	have    map[string]map[string]instance // Service -> ID -> what the catalogue has
	dirty   map[string]bool                // Services of which that is not sure
	foreign map[string]bool                // IDs on our node that are not ours
	claims  map[string]claim               // Service -> its claim
	names   map[string]map[string]bool     // name -> Services that claim it
}

func newTerm(see sight, r rules, c *catalogue, t teller, f *figures, writesPerSecond int, end context.CancelCauseFunc) *term {
	return &term{
		sight: see, rules: r, catalogue: c, teller: t, figures: f, end: end,
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, lastRetry)),
		limiter: rate.NewLimiter(rate.Limit(writesPerSecond), writesPerSecond),
		have:    map[string]map[string]instance{}, dirty: map[string]bool{}, foreign: map[string]bool{},
		claims: map[string]claim{}, names: map[string]map[string]bool{},
	}
}

// begin takes the catalogue over: others' writes end, what is there becomes known, everything is looked at once.
func (t *term) begin(ctx context.Context, identity, address string) error {
	fence, err := t.catalogue.enter(ctx, identity)
	if err != nil {
		return err
	}
	t.fence = fence
	at, found, err := t.catalogue.list(ctx, "")
	if err != nil {
		return err
	}
	want := node{t.catalogue.node, address, map[string]string{metaSource: source, metaOwner: owner}}
	switch {
	case at != nil && !marked(at.Meta):
		return fmt.Errorf("the catalogue has a node %q that this program did not make; "+
			"remove it or choose another name by the option consul_sync_node", want.Node)
	case at == nil || at.Address != want.Address:
		if err := t.catalogue.write(ctx, t.fence, []operation{{Node: &nodeOperation{"set", want}}}); err != nil {
			return err
		}
	}
	t.mu.Lock()
	t.have, t.foreign = sorted(found)
	stale := slices.Collect(maps.Keys(t.have))
	t.mu.Unlock()
	services, err := t.sight.services.List(labels.Everything())
	if err != nil {
		return err
	}
	// Who holds a name is settled before the first is written.
	for _, service := range services {
		t.settle(service.Namespace+"/"+service.Name, service)
	}
	for _, service := range services {
		t.queue.Add(service.Namespace + "/" + service.Name)
	}
	for _, key := range stale {
		t.queue.Add(key)
	}
	t.figures.compared.Store(time.Now().Unix())
	log.Printf("Active: the catalogue has %d instances of %d Services, Kubernetes has %d Services.", len(found)-len(t.foreign), len(stale), len(services))
	return nil
}

// sorted parts what is on our node: ours by Service, and the IDs of what is not ours.
func sorted(found []instance) (ours map[string]map[string]instance, foreign map[string]bool) {
	ours, foreign = map[string]map[string]instance{}, map[string]bool{}
	for _, one := range found {
		if !one.ours() {
			foreign[one.ID] = true
			continue
		}
		if ours[one.key()] == nil {
			ours[one.key()] = map[string]instance{}
		}
		ours[one.key()][one.ID] = one
	}
	return ours, foreign
}

// run works until the context ends.
func (t *term) run(ctx context.Context, compareEvery time.Duration) {
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for {
				key, over := t.queue.Get()
				if over {
					return
				}
				t.judge(key, t.reconcile(ctx, key))
				t.queue.Done(key)
			}
		})
	}
	compare, watch, guard := time.NewTicker(compareEvery), time.NewTicker(time.Second), time.NewTicker(guardEvery)
	defer compare.Stop()
	defer watch.Stop()
	defer guard.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-compare.C:
			if err := t.compare(ctx); err != nil && ctx.Err() == nil {
				log.Printf("The catalogue can't be compared with Kubernetes: %v", err)
			}
		case <-guard.C:
			// Where nothing is written, nothing else tells that Consul went back to a snapshot.
			if err := t.catalogue.write(ctx, t.fence, nil); errors.Is(err, errFenced) {
				t.end(err)
			}
		case <-watch.C:
			limit := patience
			if t.silent.Load() {
				limit = silence
			}
			if since := t.failing.Load(); since != 0 && time.Since(time.Unix(0, since)) > limit {
				t.end(fmt.Errorf("the agent of this node has done nothing for %s", limit))
			}
		}
	}
	t.queue.ShutDown()
	group.Wait()
}

// judge decides what becomes of a Service after a look at it.
func (t *term) judge(key string, err error) {
	var refused refusedError
	switch {
	case err == nil:
		t.queue.Forget(key)
	case errors.Is(err, context.Canceled):
	case errors.Is(err, errFenced), errors.Is(err, errNoNode):
		t.end(err)
	case errors.As(err, &refused):
		t.reportRecovery()
		t.teller.tell(key, refused.text)
		t.queue.Forget(key)
		t.queue.AddAfter(key, slowRetry)
	default:
		t.figures.failures.Add(1)
		var status statusError
		t.silent.Store(!errors.As(err, &status))
		if t.failing.CompareAndSwap(0, time.Now().UnixNano()) {
			log.Printf("Consul request failed, retrying: %v", err)
		}
		t.queue.AddRateLimited(key)
	}
}

// reportRecovery logs that Consul answers again after failures.
func (t *term) reportRecovery() {
	if t.failing.Swap(0) != 0 {
		log.Print("Consul answers again.")
	}
}

// reconcile makes the catalog match a Service.
func (t *term) reconcile(ctx context.Context, key string) error {
	service := t.sight.service(key)
	name, refusal := t.settle(key, service)
	want := map[string]instance{}
	if name != "" {
		want, refusal = instances(service, t.sight.slicesOf(key), name)
	}
	have, err := t.known(ctx, key)
	if err != nil {
		return err
	}
	t.mu.Lock()
	for id := range want {
		if t.foreign[id] {
			delete(want, id)
			refusal = fmt.Sprintf("the catalogue has an instance %s that this program did not make; it is left alone", id)
		}
	}
	t.mu.Unlock()
	steps := difference(have, want)
	if err := t.write(ctx, key, steps); err != nil {
		return err
	}
	t.teller.tell(key, refusal)
	if len(steps) > 0 {
		report(key, name, have, want)
	}
	return nil
}

// write makes the steps, in as many transactions as it takes. Where one fails, it is not known what the catalogue has.
func (t *term) write(ctx context.Context, key string, steps []change) error {
	for _, batch := range t.catalogue.batches(steps) {
		if err := t.limiter.Wait(ctx); err != nil {
			return context.Canceled
		}
		operations := make([]operation, len(batch))
		for i, step := range batch {
			operations[i] = t.catalogue.operation(step)
		}
		t.figures.writes.Add(1)
		err := t.catalogue.write(ctx, t.fence, operations)
		if err == nil {
			t.reportRecovery()
		}
		t.mu.Lock()
		if err != nil {
			t.dirty[key] = true
			t.mu.Unlock()
			if ctx.Err() != nil {
				return context.Canceled
			}
			return err
		}
		for _, step := range batch {
			if step.remove {
				delete(t.have[key], step.instance.ID)
				continue
			}
			if t.have[key] == nil {
				t.have[key] = map[string]instance{}
			}
			t.have[key][step.instance.ID] = step.instance
		}
		if len(t.have[key]) == 0 {
			delete(t.have, key)
		}
		t.mu.Unlock()
	}
	return nil
}

// known gives what the catalogue has of a Service; it is asked where that is not sure.
func (t *term) known(ctx context.Context, key string) (map[string]instance, error) {
	t.mu.Lock()
	sure, have := !t.dirty[key], maps.Clone(t.have[key])
	t.mu.Unlock()
	if sure {
		return have, nil
	}
	_, found, err := t.catalogue.list(ctx, key)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Canceled
		}
		return nil, err
	}
	t.reportRecovery()
	ours, _ := sorted(found)
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.dirty, key)
	delete(t.have, key)
	if len(ours[key]) > 0 {
		t.have[key] = ours[key]
	}
	return maps.Clone(ours[key]), nil
}

// settle remembers the claim of a Service and gives the name that it holds, or why it holds none.
// Whoever gains or loses a name by this is looked at again.
func (t *term) settle(key string, service *core.Service) (name, refusal string) {
	var now claim
	if service != nil {
		var yes bool
		if yes, refusal = t.rules.chosen(service); yes {
			now = t.rules.claim(service)
			refusal = now.refusal
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	before, had := t.claims[key]
	holders := map[string]string{before.name: t.holder(before.name), now.name: t.holder(now.name)}
	if had {
		delete(t.claims, key)
		delete(t.names[before.name], key)
		if len(t.names[before.name]) == 0 {
			delete(t.names, before.name)
		}
	}
	if now.key != "" && now.refusal == "" {
		t.claims[key] = now
		if t.names[now.name] == nil {
			t.names[now.name] = map[string]bool{}
		}
		t.names[now.name][key] = true
	}
	for name, former := range holders {
		if holder := t.holder(name); holder != former {
			for other := range t.names[name] {
				if other != key {
					t.queue.Add(other)
				}
			}
		}
	}
	if now.key == "" || now.refusal != "" {
		return "", refusal
	}
	if holder := t.holder(now.name); holder != key {
		return "", fmt.Sprintf("the name %q is held by the Service %s; give it another by the annotation %s", now.name, holder, annotationName)
	}
	return now.name, ""
}

// holder of a name, "" where nobody claims it. The lock is held.
func (t *term) holder(name string) string {
	var best claim
	for key := range t.names[name] {
		if c := t.claims[key]; best.key == "" || c.before(best) {
			best = c
		}
	}
	return best.key
}

// compare reads the whole catalogue and has every Service looked at whose entries are not what was written, then all others.
func (t *term) compare(ctx context.Context) error {
	at, found, err := t.catalogue.list(ctx, "")
	if err != nil {
		return err
	}
	if at == nil {
		t.end(errNoNode)
		return nil
	}
	ours, foreign := sorted(found)
	t.mu.Lock()
	t.foreign = foreign
	keys := map[string]bool{}
	differing := 0
	for _, key := range slices.Concat(slices.Collect(maps.Keys(ours)), slices.Collect(maps.Keys(t.have))) {
		// One that is being written at this moment differs, too: it is read again, which does no harm.
		if !keys[key] && !sameSets(ours[key], t.have[key]) {
			t.dirty[key] = true
			differing++
		}
		keys[key] = true
	}
	for key := range t.claims {
		keys[key] = true
	}
	t.mu.Unlock()
	for key := range keys {
		t.queue.Add(key)
	}
	t.figures.compared.Store(time.Now().Unix())
	t.figures.repaired.Add(int64(differing))
	if differing > 0 {
		log.Printf("The catalogue had other entries than were written, of %d Services; they are put right.", differing)
	}
	return nil
}

// count gives how many instances, of how many Services, the catalogue has.
func (t *term) count() (instances, services int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, of := range t.have {
		instances += len(of)
	}
	return instances, len(t.have)
}

func report(key, name string, have, want map[string]instance) {
	more, less, other := 0, 0, 0
	for id, one := range want {
		switch before, is := have[id]; {
		case !is:
			more++
		case !before.equal(one):
			other++
		}
	}
	for id := range have {
		if _, is := want[id]; !is {
			less++
		}
	}
	if name == "" {
		log.Printf("%s has left the catalogue, %d instances.", key, less)
		return
	}
	log.Printf("%s is %s in the catalogue with %d instances: %d came, %d went, %d changed.", key, name, len(want), more, less, other)
}
