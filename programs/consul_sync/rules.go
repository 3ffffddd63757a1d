// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
)

// Annotations of a Service.
const (
	annotationChosen    = "ashlar.io/consul"      // "true" or "false"
	annotationName      = "ashlar.io/consul-name" // its name in the catalogue
	annotationRoute     = "ashlar.io/route-"      // copied, as route-*, to the instances of one port
	annotationRoutePort = "ashlar.io/route-port"  // name or number of that port; the first TCP port else
)

// Metadata by which instances and their node are known as ours, and by which they are found again.
const (
	metaSource    = "external-source"
	metaOwner     = "owner"
	metaNamespace = "kubernetes-namespace"
	metaService   = "kubernetes-service"
	metaPort      = "kubernetes-port-name"
	metaProtocol  = "kubernetes-protocol"
	source        = "kubernetes"
	owner         = "consul_sync"
)

// Between a Service's name and its namespace: as neither may hold it, two Services never have the same name by themselves.
const separator = "--"

// What Consul takes as metadata (agent/structs: 64 pairs, 512 characters); ours are six.
const (
	routesMax      = 32
	routeValueMax  = 512
	dnsLabelLength = 63
)

var (
	dnsLabel = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
	metaKey  = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
)

// instance is one ready endpoint of one port, as the catalogue has it.
type instance struct {
	ID      string
	Service string
	Address string
	Port    int
	Tags    []string
	Meta    map[string]string
}

func (i instance) equal(o instance) bool {
	return i.ID == o.ID && i.Service == o.Service && i.Address == o.Address && i.Port == o.Port &&
		slices.Equal(i.Tags, o.Tags) && maps.Equal(i.Meta, o.Meta)
}

// key is the Service that an instance is of, as namespace/name.
func (i instance) key() string { return i.Meta[metaNamespace] + "/" + i.Meta[metaService] }

func (i instance) ours() bool { return marked(i.Meta) && i.Meta[metaService] != "" }

func marked(meta map[string]string) bool {
	return meta[metaSource] == source && meta[metaOwner] == owner
}

// rules say which Services are in the catalogue, and under which names they can't be.
type rules struct {
	OnlyAnnotated bool
	Namespaces    []string // all where empty
	Except        []string
	Reserved      []string // names that belong to hosts
}

// claim is the name that a Service has or would have in the catalogue; refusal says why it can have none.
type claim struct {
	key     string
	name    string
	natural bool // not by annotation
	created time.Time
	refusal string
}

// chosen says whether a Service shall be in the catalogue; refusal that it can't be told.
func (r rules) chosen(service *core.Service) (yes bool, refusal string) {
	switch {
	case service.Spec.Type == core.ServiceTypeExternalName,
		slices.Contains(r.Except, service.Namespace),
		len(r.Namespaces) > 0 && !slices.Contains(r.Namespaces, service.Namespace):
		return false, ""
	}
	switch value, given := service.Annotations[annotationChosen]; {
	case !given:
		return !r.OnlyAnnotated, ""
	case value == "true":
		return true, ""
	case value == "false":
		return false, ""
	default:
		return false, fmt.Sprintf("its annotation %s is %.40q, allowed are \"true\" and \"false\"", annotationChosen, value)
	}
}

// claim gives the name that a chosen Service is to have.
func (r rules) claim(service *core.Service) claim {
	c := claim{key: service.Namespace + "/" + service.Name, created: service.CreationTimestamp.Time}
	given, annotated := service.Annotations[annotationName]
	remedy := fmt.Sprintf("; give it another by the annotation %s", annotationName)
	switch {
	case annotated:
		c.name, remedy = given, fmt.Sprintf("; correct the annotation %s", annotationName)
	case service.Namespace == core.NamespaceDefault:
		c.name, c.natural = service.Name, true
	default:
		c.name, c.natural = service.Name+separator+service.Namespace, true
	}
	parts := []string{c.name}
	if c.natural {
		parts = []string{service.Name, service.Namespace}
	}
	switch {
	case slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(part, separator) }):
		c.refusal = fmt.Sprintf("%.80q holds %q, which stands between a Service and its namespace%s", c.name, separator, remedy)
	case len(c.name) > dnsLabelLength:
		c.refusal = fmt.Sprintf("its name %.30q... has %d characters, a name in DNS at most %d%s", c.name, len(c.name), dnsLabelLength, remedy)
	case !dnsLabel.MatchString(c.name):
		c.refusal = fmt.Sprintf("%q is no name in DNS (small letters, digits and hyphens within)%s", c.name, remedy)
	case slices.Contains(r.Reserved, c.name):
		c.refusal = fmt.Sprintf("the name %q belongs to hosts of the site%s", c.name, remedy)
	}
	return c
}

// before says which of two claims on the same name holds it: one that has it by itself, then the older one.
func (c claim) before(o claim) bool {
	switch {
	case c.natural != o.natural:
		return c.natural
	case !c.created.Equal(o.created):
		return c.created.Before(o.created)
	default:
		return c.key < o.key
	}
}

// instances gives what the catalogue shall have of a Service under a name. A refusal says why its routes are left out.
func instances(service *core.Service, slicesOf []*discovery.EndpointSlice, name string) (found map[string]instance, refusal string) {
	routes, routePort, refusal := routes(service)
	found = map[string]instance{}
	for _, slice := range slicesOf {
		if slice.AddressType == discovery.AddressTypeFQDN {
			continue
		}
		for _, port := range slice.Ports {
			if port.Port == nil {
				continue
			}
			portName, protocol := value(port.Name), value(port.Protocol)
			for _, endpoint := range slice.Endpoints {
				// A pod that shuts down stays ready where not-ready addresses are published; it shall get no new connections.
				if !isTrue(endpoint.Conditions.Ready, true) || isTrue(endpoint.Conditions.Terminating, false) || len(endpoint.Addresses) == 0 {
					continue
				}
				one := instance{
					Service: name,
					// All addresses of an endpoint lead to the same pod; the first is what Kubernetes itself uses.
					Address: endpoint.Addresses[0],
					Port:    int(*port.Port),
					Meta: map[string]string{
						metaSource: source, metaOwner: owner, metaNamespace: service.Namespace, metaService: service.Name,
					},
				}
				label := portName
				if label == "" {
					label = strings.ToLower(string(protocol))
				} else {
					one.Tags = []string{portName}
					one.Meta[metaPort] = portName
				}
				one.ID = fmt.Sprintf("%s.%s.%s.%s.%d", service.Namespace, service.Name, label, one.Address, one.Port)
				if protocol != "" && protocol != core.ProtocolTCP {
					one.Meta[metaProtocol] = string(protocol)
				}
				if len(routes) > 0 && portName == routePort {
					maps.Copy(one.Meta, routes)
				}
				found[one.ID] = one
			}
		}
	}
	return found, refusal
}

// routes gives the metadata that ask for routes and the name of the port they are for.
// One that can't be had takes all others with it: a route without its login or its limit is not what was asked for.
func routes(service *core.Service) (found map[string]string, portName, refusal string) {
	found = map[string]string{}
	for key, value := range service.Annotations {
		rest, is := strings.CutPrefix(key, annotationRoute)
		if !is || key == annotationRoutePort {
			continue
		}
		switch {
		case !metaKey.MatchString(rest):
			refusal = fmt.Sprintf("the annotation %q can't be copied: after %q may come letters, digits, '_' and '-'", key, annotationRoute)
		case len(value) > routeValueMax:
			refusal = fmt.Sprintf("the annotation %s has %d characters, allowed are %d", key, len(value), routeValueMax)
		}
		found["route-"+rest] = value
	}
	if len(found) > routesMax {
		refusal = fmt.Sprintf("it has %d annotations %s*, allowed are %d", len(found), annotationRoute, routesMax)
	}
	wanted, given := service.Annotations[annotationRoutePort]
	at := slices.IndexFunc(service.Spec.Ports, func(port core.ServicePort) bool {
		return (port.Protocol == core.ProtocolTCP || port.Protocol == "") && (!given || port.Name == wanted || strconv.Itoa(int(port.Port)) == wanted)
	})
	switch {
	case at >= 0:
		portName = service.Spec.Ports[at].Name
	case len(found) > 0 && refusal == "":
		refusal = fmt.Sprintf("no TCP port of it is %.63q, as %s says", wanted, annotationRoutePort)
		if !given {
			refusal = "it has no TCP port"
		}
	}
	if refusal != "" {
		return nil, "", "it is in the catalogue without its routes: " + refusal
	}
	return found, portName, ""
}

// change is one step from what the catalogue has to what it shall have.
type change struct {
	remove   bool
	instance instance
}

// difference gives the steps, new instances first, so that a name never leads to nothing in between.
func difference(have, want map[string]instance) []change {
	var first, last []change
	for _, id := range slices.Sorted(maps.Keys(want)) {
		before, is := have[id]
		switch {
		case is && before.equal(want[id]):
		case is && before.Service != want[id].Service:
			// Under the same ID the former name would keep an index that watchers never see change.
			first = append(first, change{true, before}, change{false, want[id]})
		default:
			first = append(first, change{false, want[id]})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(have)) {
		if _, is := want[id]; !is {
			last = append(last, change{true, have[id]})
		}
	}
	return append(first, last...)
}

func value[T any](pointer *T) (v T) {
	if pointer != nil {
		v = *pointer
	}
	return v
}

func isTrue(pointer *bool, otherwise bool) bool {
	if pointer == nil {
		return otherwise
	}
	return *pointer
}

// sameSets says whether two sets of instances are the same.
func sameSets(a, b map[string]instance) bool {
	return len(a) == len(b) && (reflect.DeepEqual(a, b) || len(difference(a, b)) == 0)
}
