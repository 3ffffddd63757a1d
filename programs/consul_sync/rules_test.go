// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var all = rules{Except: []string{"kube-system"}, Reserved: []string{"consul", "etcd"}}

func serviceOf(namespace, name string, annotations map[string]string, ports ...core.ServicePort) *core.Service {
	if len(ports) == 0 {
		ports = []core.ServicePort{{Name: "http", Port: 80, Protocol: core.ProtocolTCP}}
	}
	return &core.Service{
		ObjectMeta: meta.ObjectMeta{Namespace: namespace, Name: name, Annotations: annotations},
		Spec:       core.ServiceSpec{Ports: ports},
	}
}

// sliceOf has endpoints 10.0.0.<n> with ports name -> number.
func sliceOf(namespace, service, name string, ports map[string]int32, hosts ...int) *discovery.EndpointSlice {
	made := &discovery.EndpointSlice{
		ObjectMeta:  meta.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{discovery.LabelServiceName: service}},
		AddressType: discovery.AddressTypeIPv4,
	}
	for _, port := range slices.Sorted(maps.Keys(ports)) {
		made.Ports = append(made.Ports, discovery.EndpointPort{Name: new(port), Port: new(ports[port]), Protocol: new(core.ProtocolTCP)})
	}
	for _, host := range hosts {
		made.Endpoints = append(made.Endpoints, discovery.Endpoint{Addresses: []string{fmt.Sprintf("10.0.0.%d", host)}})
	}
	return made
}

func TestNamesAreOwnAndValid(t *testing.T) {
	long := strings.Repeat("x", 40)
	named := func(name string) map[string]string { return map[string]string{annotationName: name} }
	cases := map[string]struct {
		service       *core.Service
		name, refusal string
	}{
		"of the default namespace":         {serviceOf("default", "web", nil), "web", ""},
		"of another":                       {serviceOf("shop", "web", nil), "web--shop", ""},
		"with hyphens":                     {serviceOf("b-c", "a", nil), "a--b-c", ""},
		"given":                            {serviceOf("shop", "web", named("front")), "front", ""},
		"that looks like another's":        {serviceOf("default", "web--shop", nil), "", "holds \"--\""},
		"given so that it looks like one":  {serviceOf("a", "b", named("web--shop")), "", "holds \"--\""},
		"too long":                         {serviceOf(long, long, nil), "", "has 82 characters"},
		"of 10,000 characters":             {serviceOf("a", "b", named(strings.Repeat("x", 10000))), "", "has 10000 characters"},
		"with a template":                  {serviceOf("a", "b", named("{{ env }}")), "", "is no name in DNS"},
		"with a shell's characters":        {serviceOf("a", "b", named("$(reboot)")), "", "is no name in DNS"},
		"in capitals":                      {serviceOf("a", "b", named("Web")), "", "is no name in DNS"},
		"with a dot":                       {serviceOf("a", "b", named("web.shop")), "", "is no name in DNS"},
		"empty":                            {serviceOf("a", "b", named("")), "", "is no name in DNS"},
		"that ends in a hyphen":            {serviceOf("a", "b", named("web-")), "", "is no name in DNS"},
		"of Consul itself":                 {serviceOf("default", "consul", nil), "", "belongs to hosts"},
		"of a service of hosts, given":     {serviceOf("a", "b", named("etcd")), "", "belongs to hosts"},
		"of a host's, in another namepace": {serviceOf("a", "etcd", nil), "etcd--a", ""},
	}
	for title, c := range cases {
		t.Run(title, func(t *testing.T) {
			got := all.claim(c.service)
			if c.refusal == "" && (got.refusal != "" || got.name != c.name) {
				t.Fatalf("%q, refused because %q", got.name, got.refusal)
			}
			if c.refusal != "" && (!strings.Contains(got.refusal, c.refusal) || !strings.Contains(got.refusal, annotationName) || len(got.refusal) > 400) {
				t.Fatalf("%q does not say %q and what to do", got.refusal, c.refusal)
			}
		})
	}
}

func TestTwoServicesNeverHaveTheSameNameByThemselves(t *testing.T) {
	words := []string{"a", "b", "a-b", "b-a", "a--b", "b--a", "a-b--a", "default", "x1"}
	seen := map[string]string{}
	for _, namespace := range append(words, "default") {
		for _, name := range words {
			c := all.claim(serviceOf(namespace, name, nil))
			if other, taken := seen[c.name]; taken && c.refusal == "" && other != c.key {
				t.Fatalf("%s and %s are both %s", other, c.key, c.name)
			}
			if c.refusal == "" {
				seen[c.name] = c.key
			}
		}
	}
}

func TestWhoHoldsANameDoesNotDependOnTheOrder(t *testing.T) {
	early, late := time.Unix(100, 0), time.Unix(200, 0)
	order := []claim{
		{key: "default/web", name: "web", natural: true, created: late},
		{key: "x/web", name: "web", created: early},
		{key: "a/web", name: "web", created: late},
		{key: "b/web", name: "web", created: late},
	}
	for i, one := range order {
		for j, other := range order {
			if i != j && one.before(other) != (i < j) {
				t.Fatalf("%s before %s: %v", one.key, other.key, one.before(other))
			}
		}
	}
}

func TestWhichServicesAreChosen(t *testing.T) {
	external := serviceOf("default", "web", nil)
	external.Spec.Type = core.ServiceTypeExternalName
	said := func(value string) map[string]string { return map[string]string{annotationChosen: value} }
	cases := map[string]struct {
		rules   rules
		service *core.Service
		yes     bool
	}{
		"all":                          {all, serviceOf("shop", "web", nil), true},
		"not the system's":             {all, serviceOf("kube-system", "web", said("true")), false},
		"not who does not want":        {all, serviceOf("shop", "web", said("false")), false},
		"not who says nonsense":        {all, serviceOf("shop", "web", said("nope")), false},
		"no names of elsewhere":        {all, external, false},
		"only who asks":                {rules{OnlyAnnotated: true}, serviceOf("shop", "web", nil), false},
		"who asks":                     {rules{OnlyAnnotated: true}, serviceOf("shop", "web", said("true")), true},
		"of a namespace in the list":   {rules{Namespaces: []string{"shop"}}, serviceOf("shop", "web", nil), true},
		"of a namespace that is not":   {rules{Namespaces: []string{"shop"}}, serviceOf("other", "web", nil), false},
		"none beyond the list by will": {rules{Namespaces: []string{"shop"}}, serviceOf("other", "web", said("true")), false},
	}
	for title, c := range cases {
		if yes, _ := c.rules.chosen(c.service); yes != c.yes {
			t.Errorf("%s: %v", title, yes)
		}
	}
	if _, refusal := all.chosen(serviceOf("shop", "web", said("nope"))); !strings.Contains(refusal, `"nope", allowed are "true" and "false"`) {
		t.Error(refusal)
	}
}

func TestOnlyReadyEndpointsAreInstances(t *testing.T) {
	slice := sliceOf("shop", "web", "web-1", map[string]int32{"http": 8080}, 1, 2, 3, 4, 5)
	slice.Endpoints[1].Conditions.Ready = new(false)
	slice.Endpoints[2].Conditions = discovery.EndpointConditions{Ready: new(true), Terminating: new(true)}
	slice.Endpoints[3].Conditions = discovery.EndpointConditions{Ready: new(false), Serving: new(true), Terminating: new(true)}
	slice.Endpoints[4].Conditions = discovery.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)}
	// While Kubernetes moves endpoints between slices, one may be in both.
	again := sliceOf("shop", "web", "web-2", map[string]int32{"http": 8080}, 1)
	found, refusal := instances(serviceOf("shop", "web", nil), []*discovery.EndpointSlice{slice, again}, "web--shop")
	if ids := slices.Sorted(maps.Keys(found)); refusal != "" || !slices.Equal(ids, []string{"shop.web.http.10.0.0.1.8080", "shop.web.http.10.0.0.5.8080"}) {
		t.Fatal(ids, refusal)
	}
	one := found["shop.web.http.10.0.0.1.8080"]
	if !one.ours() || one.Service != "web--shop" || one.Address != "10.0.0.1" || one.Port != 8080 || !slices.Equal(one.Tags, []string{"http"}) ||
		one.key() != "shop/web" || one.Meta[metaPort] != "http" {
		t.Fatalf("%+v", one)
	}
}

func TestAPodThatNamesItsPortOtherwiseIsFoundThere(t *testing.T) {
	given := []*discovery.EndpointSlice{
		sliceOf("a", "web", "1", map[string]int32{"http": 8080, "metrics": 9090}, 1),
		sliceOf("a", "web", "2", map[string]int32{"http": 8081}, 2),
	}
	given = append(given, &discovery.EndpointSlice{
		AddressType: discovery.AddressTypeFQDN, Ports: given[0].Ports, Endpoints: []discovery.Endpoint{{Addresses: []string{"example.com"}}},
	})
	found, _ := instances(serviceOf("a", "web", nil), given, "web--a")
	ids := slices.Sorted(maps.Keys(found))
	if !slices.Equal(ids, []string{"a.web.http.10.0.0.1.8080", "a.web.http.10.0.0.2.8081", "a.web.metrics.10.0.0.1.9090"}) {
		t.Fatal(ids)
	}
}

func TestRoutesAreOfOnePortAndWholeOrNotAtAll(t *testing.T) {
	ports := []core.ServicePort{
		{Name: "dns", Port: 53, Protocol: core.ProtocolUDP}, {Name: "http", Port: 80}, {Name: "admin", Port: 81, Protocol: core.ProtocolTCP},
	}
	slice := sliceOf("a", "web", "1", map[string]int32{"http": 8080, "admin": 8081}, 1)
	routed := func(annotations map[string]string, ports ...core.ServicePort) (string, string) {
		found, refusal := instances(serviceOf("a", "web", annotations, ports...), []*discovery.EndpointSlice{slice}, "web--a")
		if len(found) != 2 {
			t.Fatalf("%d instances", len(found))
		}
		var where []string
		for _, id := range slices.Sorted(maps.Keys(found)) {
			for _, key := range slices.Sorted(maps.Keys(found[id].Meta)) {
				if strings.HasPrefix(key, "route-") {
					where = append(where, found[id].Tags[0]+" "+key+"="+found[id].Meta[key])
				}
			}
		}
		return strings.Join(where, "; "), refusal
	}
	host := map[string]string{"ashlar.io/route-host": "a.example, {{ odd }} `x`", "ashlar.io/route-login": "true"}
	with := func(key, value string) map[string]string {
		more := maps.Clone(host)
		more[key] = value
		return more
	}
	many := map[string]string{}
	for i := range routesMax + 1 {
		many[fmt.Sprintf("ashlar.io/route-%d", i)] = "x"
	}
	cases := map[string]struct {
		annotations     map[string]string
		ports           []core.ServicePort
		routes, refusal string
	}{
		"none":                     {nil, ports, "", ""},
		"the first TCP port":       {host, ports, "http route-host=a.example, {{ odd }} `x`; http route-login=true", ""},
		"by name":                  {with(annotationRoutePort, "admin"), ports, "admin route-host=a.example, {{ odd }} `x`; admin route-login=true", ""},
		"by number":                {with(annotationRoutePort, "81"), ports, "admin route-host=a.example, {{ odd }} `x`; admin route-login=true", ""},
		"a port that is not there": {with(annotationRoutePort, "nope"), ports, "", `no TCP port of it is "nope"`},
		"a port of UDP":            {with(annotationRoutePort, "dns"), ports, "", `no TCP port of it is "dns"`},
		"no TCP port":              {host, ports[:1], "", "it has no TCP port"},
		"too long":                 {with("ashlar.io/route-path", strings.Repeat("/", 10000)), ports, "", "route-path has 10000 characters, allowed are 512"},
		"a key that Consul denies": {with("ashlar.io/route-a.b", "x"), ports, "", `"ashlar.io/route-a.b" can't be copied`},
		"too many":                 {many, ports, "", "33 annotations"},
	}
	for title, c := range cases {
		got, refusal := routed(c.annotations, c.ports...)
		if got != c.routes || !strings.Contains(refusal, c.refusal) || (refusal == "") != (c.refusal == "") {
			t.Errorf("%s: %q, refused because %q", title, got, refusal)
		}
	}
}

func TestDifferenceIsAddedBeforeItIsTakenAway(t *testing.T) {
	one := func(id, name string, port int) instance { return instance{ID: id, Service: name, Port: port} }
	of := func(list ...instance) map[string]instance {
		made := map[string]instance{}
		for _, i := range list {
			made[i.ID] = i
		}
		return made
	}
	steps := difference(of(one("a", "web", 1), one("b", "web", 1), one("c", "web", 1)), of(one("b", "web", 1), one("c", "web", 2), one("d", "web", 1)))
	if text := fmt.Sprint(steps); text != fmt.Sprint([]change{{false, one("c", "web", 2)}, {false, one("d", "web", 1)}, {true, one("a", "web", 1)}}) {
		t.Fatal(text)
	}
	steps = difference(of(one("a", "web", 1)), of(one("a", "front", 1)))
	if text := fmt.Sprint(steps); text != fmt.Sprint([]change{{true, one("a", "web", 1)}, {false, one("a", "front", 1)}}) {
		t.Fatal(text)
	}
	if len(difference(of(one("a", "web", 1)), of(one("a", "web", 1)))) != 0 {
		t.Fatal("what is the same was to be written")
	}
}
