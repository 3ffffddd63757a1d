// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// A transaction holds 128 operations and 512 KiB at most (agent/txn_endpoint.go); one of ours is the fence.
const (
	operationsMax = 64
	bytesMax      = 256 << 10
	callTimeout   = 10 * time.Second
)

var (
	// errFenced: another one has become active since, or the catalogue is another one.
	errFenced = errors.New("the catalogue takes no writes of this term any more")
	// errNoNode: somebody removed our node.
	errNoNode = errors.New("our node is not in the catalogue any more")
)

// refusedError: Consul will never take this; trying again is of no use.
type refusedError struct{ text string }

func (e refusedError) Error() string { return e.text }

// catalogue is Consul, through the agent of this host. Certificates and token are read anew whenever they are used.
type catalogue struct {
	address   string
	node      string
	tokenFile string
	client    *http.Client
}

func newCatalogue(c consulSettings) (*catalogue, error) {
	at, err := url.Parse(c.Address)
	if err != nil {
		return nil, fmt.Errorf("consul.address: %w", err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: workers + 2, IdleConnTimeout: 30 * time.Second, ResponseHeaderTimeout: callTimeout}
	if at.Scheme == "https" {
		transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			authority, err := os.ReadFile(c.Authority)
			if err != nil {
				return nil, err
			}
			pool := x509.NewCertPool()
			if !pool.AppendCertsFromPEM(authority) {
				return nil, fmt.Errorf("%s holds no certificate", c.Authority)
			}
			pair, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
			if err != nil {
				return nil, err
			}
			dialer := tls.Dialer{
				NetDialer: &net.Dialer{Timeout: 3 * time.Second},
				Config:    &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{pair}},
			}
			return dialer.DialContext(ctx, network, address)
		}
	}
	return &catalogue{strings.TrimSuffix(c.Address, "/"), c.Node, c.TokenFile, &http.Client{Transport: transport, Timeout: callTimeout}}, nil
}

// operation is one of a transaction (https://developer.hashicorp.com/consul/api-docs/txn).
type operation struct {
	KV      *keyOperation     `json:",omitempty"`
	Node    *nodeOperation    `json:",omitempty"`
	Service *serviceOperation `json:",omitempty"`
}

type keyOperation struct {
	Verb  string
	Key   string
	Value string `json:",omitempty"` // base64
	Index uint64 `json:",omitempty"`
}

type nodeOperation struct {
	Verb string
	Node node
}

type serviceOperation struct {
	Verb    string
	Node    string
	Service service
}

type node struct {
	Node    string
	Address string
	Meta    map[string]string
}

type service struct {
	ID      string
	Service string
	Tags    []string
	Address string
	Port    int
	Meta    map[string]string
	Weights struct{ Passing, Warning int }
}

func (c *catalogue) fenceKey() string { return "ashlar/sync/" + c.node }

// enter makes this process the only one whose writes are taken from now on, and gives the number that write asks for.
func (c *catalogue) enter(ctx context.Context, identity string) (uint64, error) {
	value := base64.StdEncoding.EncodeToString([]byte(identity + " since " + time.Now().UTC().Format(time.RFC3339Nano)))
	results, err := c.transact(ctx, []operation{{KV: &keyOperation{Verb: "set", Key: c.fenceKey(), Value: value}}})
	if err != nil {
		return 0, err
	}
	if len(results) != 1 || results[0].KV.ModifyIndex == 0 {
		return 0, errors.New("the token may not write the key " + c.fenceKey())
	}
	return results[0].KV.ModifyIndex, nil
}

// write makes changes, all or none, unless another one has entered since.
func (c *catalogue) write(ctx context.Context, fence uint64, operations []operation) error {
	_, err := c.transact(ctx, append([]operation{{KV: &keyOperation{Verb: "check-index", Key: c.fenceKey(), Index: fence}}}, operations...))
	return err
}

func (c *catalogue) operation(step change) operation {
	verb := "set"
	if step.remove {
		verb = "delete"
	}
	i := step.instance
	of := service{ID: i.ID, Service: i.Service, Tags: i.Tags, Address: i.Address, Port: i.Port, Meta: i.Meta}
	of.Weights.Passing, of.Weights.Warning = 1, 1
	return operation{Service: &serviceOperation{Verb: verb, Node: c.node, Service: of}}
}

// batches parts changes into what a transaction holds.
func (c *catalogue) batches(steps []change) [][]change {
	var all [][]change
	length := bytesMax + 1
	for _, step := range steps {
		text, _ := json.Marshal(c.operation(step))
		if length+len(text) > bytesMax || len(all[len(all)-1]) >= operationsMax {
			all, length = append(all, nil), 0
		}
		all[len(all)-1] = append(all[len(all)-1], step)
		length += len(text)
	}
	return all
}

// list reads our node and the instances on it, as the leader has them: those of one Service (namespace/name), or all.
func (c *catalogue) list(ctx context.Context, key string) (*node, []instance, error) {
	query := url.Values{"consistent": {"1"}}
	if namespace, name, is := strings.Cut(key, "/"); is {
		query.Set("filter", fmt.Sprintf("Meta[%q] == %q and Meta[%q] == %q", metaNamespace, namespace, metaService, name))
	}
	text, err := c.call(ctx, http.MethodGet, "/v1/catalog/node-services/"+url.PathEscape(c.node)+"?"+query.Encode(), nil)
	if err != nil {
		return nil, nil, err
	}
	var answer *struct {
		Node     *node
		Services []instance
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, nil, err
	}
	if answer == nil {
		return nil, nil, nil
	}
	return answer.Node, answer.Services, nil
}

type result struct{ KV struct{ ModifyIndex uint64 } }

type answer struct {
	Results []result
	Errors  []struct {
		OpIndex int
		What    string
	}
}

// transact makes all operations or none. The first, where it is about a key, is the fence.
func (c *catalogue) transact(ctx context.Context, operations []operation) ([]result, error) {
	body, err := json.Marshal(operations)
	if err != nil {
		return nil, err
	}
	text, err := c.call(ctx, http.MethodPut, "/v1/txn", body)
	var said answer
	var status statusError
	switch {
	case errors.As(err, &status) && status.code == http.StatusConflict && json.Unmarshal(text, &said) == nil && len(said.Errors) > 0:
		return nil, meaning(said, operations)
	case err != nil:
		return nil, err
	}
	if err := json.Unmarshal(text, &said); err != nil {
		return nil, fmt.Errorf("PUT /v1/txn: the answer can't be read: %w", err)
	}
	return said.Results, nil
}

// meaning of a transaction that Consul has not made.
func meaning(said answer, operations []operation) error {
	first := said.Errors[0]
	what := fmt.Sprintf("%.300s", first.What)
	switch {
	case strings.Contains(what, "missing node"):
		return errNoNode
	case first.OpIndex != 0 || operations[0].KV == nil:
		return refusedError{"Consul refuses it: " + what}
	case strings.Contains(strings.ToLower(what), "permission denied"):
		return fmt.Errorf("the token may not use the key %s: %s", operations[0].KV.Key, what)
	default:
		return errFenced
	}
}

// statusError is an answer other than 200.
type statusError struct {
	code int
	text string
}

func (e statusError) Error() string { return e.text }

// call gives the answer's body, with a statusError if it is no success.
func (c *catalogue) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.address+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if c.tokenFile != "" {
		token, err := os.ReadFile(c.tokenFile)
		if err != nil {
			return nil, err
		}
		request.Header.Set("X-Consul-Token", strings.TrimSpace(string(token)))
	}
	reply, err := c.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(io.LimitReader(reply.Body, 256<<20))
	if err == nil && reply.StatusCode != http.StatusOK {
		where, _, _ := strings.Cut(path, "?")
		err = statusError{reply.StatusCode, fmt.Sprintf("%s %s: %s: %.300s", method, where, reply.Status, bytes.TrimSpace(text))}
	}
	return text, err
}
