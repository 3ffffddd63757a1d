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

	certificates "k8s.io/api/certificates/v1"
)

func request(t *testing.T, user string, asked x509.CertificateRequest, usages ...certificates.KeyUsage) *certificates.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &asked, key)
	if err != nil {
		t.Fatal(err)
	}
	if usages == nil {
		usages = []certificates.KeyUsage{certificates.UsageDigitalSignature, certificates.UsageServerAuth}
	}
	return &certificates.CertificateSigningRequest{Spec: certificates.CertificateSigningRequestSpec{
		SignerName: certificates.KubeletServingSignerName,
		Username:   user,
		Groups:     []string{"system:nodes", "system:authenticated"},
		Usages:     usages,
		Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
	}}
}

func TestJudge(t *testing.T) {
	node := "system:node:node1"
	good := x509.CertificateRequest{
		Subject:     pkix.Name{CommonName: node, Organization: []string{"system:nodes"}},
		DNSNames:    []string{"node1"},
		IPAddresses: []net.IP{net.ParseIP("10.89.0.11")},
	}
	change := func(f func(*x509.CertificateRequest)) x509.CertificateRequest { asked := good; f(&asked); return asked }
	for name, c := range map[string]struct {
		user  string
		asked x509.CertificateRequest
		usage []certificates.KeyUsage
		want  string
	}{
		"good":            {user: node, asked: good},
		"not a node":      {user: "admin", asked: good, want: "is not a node"},
		"another's name":  {user: "system:node:node2", asked: good, want: "is not the requestor"},
		"regex":           {user: "system:node:x", asked: good, want: "-provider-regex"},
		"dns of another":  {user: node, asked: change(func(r *x509.CertificateRequest) { r.DNSNames = []string{"node10"} }), want: "is not of node"},
		"wrong network":   {user: node, asked: change(func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{net.ParseIP("192.0.2.1")} }), want: "in none of"},
		"loopback":        {user: node, asked: change(func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{net.ParseIP("127.0.0.1")} }), want: "is not a node's"},
		"nothing named":   {user: node, asked: change(func(r *x509.CertificateRequest) { r.DNSNames, r.IPAddresses = nil, nil }), want: "neither"},
		"mail":            {user: node, asked: change(func(r *x509.CertificateRequest) { r.EmailAddresses = []string{"a@b.c"} }), want: "mail"},
		"another group":   {user: node, asked: change(func(r *x509.CertificateRequest) { r.Subject.Organization = []string{"system:masters"} }), want: "organizations"},
		"client usage":    {user: node, asked: good, usage: []certificates.KeyUsage{certificates.UsageClientAuth, certificates.UsageServerAuth}, want: "client auth"},
		"no server usage": {user: node, asked: good, usage: []certificates.KeyUsage{certificates.UsageDigitalSignature}, want: "server auth"},
	} {
		t.Run(name, func(t *testing.T) {
			rules, err := newPolicy("node[0-9]+", "10.89.0.0/24", false, 7776000)
			if err != nil {
				t.Fatal(err)
			}
			got := rules.judge(request(t, c.user, c.asked, c.usage...))
			if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Fatalf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestJudgeExpirationAndGarbage(t *testing.T) {
	rules, _ := newPolicy(".*", "", false, 60)
	long := int32(61)
	asked := &certificates.CertificateSigningRequest{Spec: certificates.CertificateSigningRequestSpec{
		Username: "system:node:a", Groups: []string{"system:nodes"}, Usages: []certificates.KeyUsage{certificates.UsageServerAuth},
		Request: []byte("garbage"), ExpirationSeconds: &long,
	}}
	if got := rules.judge(asked); !strings.Contains(got, "61 s") {
		t.Fatal(got)
	}
	asked.Spec.ExpirationSeconds = nil
	if got := rules.judge(asked); !strings.Contains(got, "PEM") {
		t.Fatal(got)
	}
}
