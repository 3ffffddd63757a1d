// SPDX-License-Identifier: Apache-2.0

// Command kubelet-csr-approver approves the serving certificates that kubelets ask for.
//
// Kubernetes signs them but leaves it to the operator to say which node may carry which name and address; here the site's inventory says so.
// A request is approved when it comes from the node itself and asks for nothing but that node's own name and address.
// All others stay pending, with one line in the log that says why.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	signer     = "kubernetes.io/kubelet-serving"
	collection = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
	group      = "system:nodes"
	userPrefix = "system:node:"
)

// request is what of a CertificateSigningRequest decides (API certificates.k8s.io/v1).
type request struct {
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		Request    []byte   `json:"request"`
		SignerName string   `json:"signerName"`
		Username   string   `json:"username"`
		Groups     []string `json:"groups"`
		Usages     []string `json:"usages"`
	} `json:"spec"`
	Status struct {
		Conditions []struct {
			Type string `json:"type"`
		} `json:"conditions"`
	} `json:"status"`
}

// refusal says why a request is not approved, or nothing where it may be. nodes maps a node's name to its address.
func refusal(r request, nodes map[string]string) string {
	name, isNode := strings.CutPrefix(r.Spec.Username, userPrefix)
	address := net.ParseIP(nodes[name])
	switch {
	case r.Spec.SignerName != signer:
		return fmt.Sprintf("it is for the signer %q", r.Spec.SignerName)
	case !isNode || !slices.Contains(r.Spec.Groups, group):
		return fmt.Sprintf("%q is not a node", r.Spec.Username)
	case address == nil:
		return fmt.Sprintf("node %q is not in the site's inventory", name)
	}
	for _, usage := range r.Spec.Usages {
		if !slices.Contains([]string{"digital signature", "key encipherment", "server auth"}, usage) {
			return fmt.Sprintf("it asks for the usage %q", usage)
		}
	}
	if !slices.Contains(r.Spec.Usages, "server auth") {
		return "it does not ask for the usage \"server auth\""
	}
	block, rest := pem.Decode(r.Spec.Request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(bytes.TrimSpace(rest)) > 0 {
		return "it does not hold one PEM block of type CERTIFICATE REQUEST"
	}
	asked, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return fmt.Sprintf("it can't be read: %v", err)
	}
	switch {
	case asked.CheckSignature() != nil:
		return "its signature is wrong"
	case asked.Subject.CommonName != r.Spec.Username:
		return fmt.Sprintf("its common name is %q, its sender is %q", asked.Subject.CommonName, r.Spec.Username)
	case !slices.Equal(asked.Subject.Organization, []string{group}):
		return fmt.Sprintf("its organizations are %q", asked.Subject.Organization)
	case len(asked.EmailAddresses)+len(asked.URIs) > 0:
		return "it asks for mail addresses or URIs"
	case len(asked.DNSNames)+len(asked.IPAddresses) == 0:
		return "it asks for no name and no address"
	}
	for _, dns := range asked.DNSNames {
		if dns != name {
			return fmt.Sprintf("it asks for the name %q, the node's is %q", dns, name)
		}
	}
	for _, ip := range asked.IPAddresses {
		if !ip.Equal(address) {
			return fmt.Sprintf("it asks for the address %s, the inventory has %s", ip, address)
		}
	}
	return ""
}

// api speaks to the API server; certificates are read anew for each connection, so that renewed ones are used without a restart.
type api struct {
	server string
	client *http.Client
}

func newAPI(server, authority, certificate, key string) (*api, error) {
	text, err := os.ReadFile(authority)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate", authority)
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS12,
			RootCAs:    pool,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				pair, err := tls.LoadX509KeyPair(certificate, key)
				return &pair, err
			},
		},
		IdleConnTimeout:   30 * time.Second,
		ForceAttemptHTTP2: true,
	}
	return &api{server, &http.Client{Transport: transport, Timeout: 10 * time.Second}}, nil
}

func (a *api) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, a.server+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := a.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<20))
	if err == nil && answer.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %.300s", method, path, answer.Status, text)
	}
	return text, err
}

// round looks at every pending request once. told remembers which refusals were logged.
func (a *api) round(ctx context.Context, nodesFile string, told map[string]bool) error {
	text, err := a.call(ctx, http.MethodGet, collection+"?fieldSelector="+url.QueryEscape("spec.signerName="+signer), nil)
	if err != nil {
		return err
	}
	var list struct {
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return err
	}
	var nodes map[string]string
	for _, item := range list.Items {
		var r request
		if err := json.Unmarshal(item, &r); err != nil {
			return err
		}
		if len(r.Status.Conditions) > 0 {
			continue
		}
		if nodes == nil {
			known, err := os.ReadFile(nodesFile)
			if err == nil {
				err = json.Unmarshal(known, &nodes)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", nodesFile, err)
			}
		}
		name := r.Metadata.Name
		if why := refusal(r, nodes); why != "" {
			if !told[name] {
				log.Printf("%s of %s stays pending: %s", name, r.Spec.Username, why)
				told[name] = true
			}
			continue
		}
		if err := a.approve(ctx, name, item); err != nil {
			log.Printf("%s of %s: %v", name, r.Spec.Username, err)
			continue
		}
		log.Printf("%s of %s is approved", name, r.Spec.Username)
	}
	return nil
}

func (a *api) approve(ctx context.Context, name string, item json.RawMessage) error {
	var object map[string]any
	if err := json.Unmarshal(item, &object); err != nil {
		return err
	}
	now := time.Now().UTC().Format(time.RFC3339)
	object["apiVersion"], object["kind"] = "certificates.k8s.io/v1", "CertificateSigningRequest"
	object["status"] = map[string]any{"conditions": []map[string]string{{
		"type": "Approved", "status": "True", "reason": "NodeOfTheSite",
		"message":        "The node asks for its own name and address, as the site's inventory has them.",
		"lastUpdateTime": now,
	}}}
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	_, err = a.call(ctx, http.MethodPut, collection+"/"+url.PathEscape(name)+"/approval", body)
	return err
}

func main() {
	log.SetFlags(0)
	server := flag.String("server", "https://127.0.0.1:6443", "URL of the API server")
	authority := flag.String("certificate-authority", "", "file of the authority that the API server's certificate is signed by")
	certificate := flag.String("client-certificate", "", "file of this client's certificate")
	key := flag.String("client-key", "", "file of this client's key")
	nodes := flag.String("nodes", "", "JSON file, name of a node to its address; read anew for every look at a pending request")
	every := flag.Duration("every", 2*time.Second, "how long to wait between two looks")
	flag.Parse()

	a, err := newAPI(*server, *authority, *certificate, *key)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	told, last := map[string]bool{}, ""
	for {
		problem := ""
		if err := a.round(ctx, *nodes, told); err != nil && ctx.Err() == nil {
			problem = err.Error()
			if problem != last {
				log.Print(problem)
			}
		}
		last = problem
		select {
		case <-ctx.Done():
			return
		case <-time.After(*every):
		}
	}
}
