// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"strings"
	"testing"
)

var site = map[string]string{"node1": "10.0.0.1", "node2": "10.0.0.2"}

func from(t *testing.T, user string, template x509.CertificateRequest) request {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		t.Fatal(err)
	}
	var r request
	r.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	r.Spec.SignerName, r.Spec.Username = signer, user
	r.Spec.Groups = []string{group, "system:authenticated"}
	r.Spec.Usages = []string{"digital signature", "server auth"}
	return r
}

func own() x509.CertificateRequest {
	return x509.CertificateRequest{
		Subject:     pkix.Name{CommonName: "system:node:node1", Organization: []string{group}},
		DNSNames:    []string{"node1"},
		IPAddresses: []net.IP{net.ParseIP("10.0.0.1")},
	}
}

func TestANodeGetsItsOwnNameAndAddress(t *testing.T) {
	if why := refusal(from(t, "system:node:node1", own()), site); why != "" {
		t.Fatal(why)
	}
}

func TestEverythingElseStaysPending(t *testing.T) {
	cases := map[string]struct {
		change func(*x509.CertificateRequest, *request)
		user   string
		why    string
	}{
		"another's name":    {func(c *x509.CertificateRequest, _ *request) { c.DNSNames = []string{"node2"} }, "", "asks for the name"},
		"another's address": {func(c *x509.CertificateRequest, _ *request) { c.IPAddresses = []net.IP{net.ParseIP("10.0.0.2")} }, "", "asks for the address"},
		"one name too many": {func(c *x509.CertificateRequest, _ *request) { c.DNSNames = []string{"node1", "kubernetes"} }, "", "asks for the name"},
		"another's request": {nil, "system:node:node2", "common name"},
		"a stranger":        {nil, "system:node:node9", "not in the site's inventory"},
		"no node":           {nil, "mallory", "not a node"},
		"more rights": {func(c *x509.CertificateRequest, _ *request) {
			c.Subject.Organization = []string{group, "system:masters"}
		}, "", "organizations"},
		"nothing asked":        {func(c *x509.CertificateRequest, _ *request) { c.DNSNames, c.IPAddresses = nil, nil }, "", "no name"},
		"mail":                 {func(c *x509.CertificateRequest, _ *request) { c.EmailAddresses = []string{"a@b.example"} }, "", "mail"},
		"a client certificate": {func(_ *x509.CertificateRequest, r *request) { r.Spec.Usages = append(r.Spec.Usages, "client auth") }, "", "usage"},
		"another signer": {func(_ *x509.CertificateRequest, r *request) {
			r.Spec.SignerName = "kubernetes.io/kube-apiserver-client"
		}, "", "signer"},
		"outside the group": {func(_ *x509.CertificateRequest, r *request) { r.Spec.Groups = nil }, "", "not a node"},
		"garbage":           {func(_ *x509.CertificateRequest, r *request) { r.Spec.Request = []byte("garbage") }, "", "PEM"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			template, changed := own(), request{}
			user := c.user
			if user == "" {
				user = "system:node:node1"
			}
			if c.change != nil {
				c.change(&template, &changed)
			}
			r := from(t, user, template)
			if c.change != nil {
				c.change(&template, &r)
			}
			if why := refusal(r, site); !strings.Contains(why, c.why) {
				t.Fatalf("%q does not say %q", why, c.why)
			}
		})
	}
}
