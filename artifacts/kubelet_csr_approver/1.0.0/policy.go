// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	certificates "k8s.io/api/certificates/v1"
)

// policy says which serving certificates a kubelet may have.
type policy struct {
	names      *regexp.Regexp // the node's name, anchored by newPolicy
	prefixes   []netip.Prefix // addresses must lie in one of these; empty: any address
	anyName    bool           // DNS names need not be the node's
	expiration int32          // seconds; at most this
}

// judge returns why the request is refused, or "" when it is approved. What a kubelet's serving certificate has to
// look like: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers
func (p policy) judge(request *certificates.CertificateSigningRequest) string {
	node, isNode := strings.CutPrefix(request.Spec.Username, "system:node:")
	if !isNode || node == "" || !slices.Contains(request.Spec.Groups, "system:nodes") {
		return fmt.Sprintf("%q is not a node", request.Spec.Username)
	}
	if !p.names.MatchString(node) {
		return fmt.Sprintf("node %q does not match -provider-regex", node)
	}
	if reason := usages(request.Spec.Usages); reason != "" {
		return reason
	}
	if seconds := request.Spec.ExpirationSeconds; seconds != nil && *seconds > p.expiration {
		return fmt.Sprintf("asks for %d s, allowed are %d s", *seconds, p.expiration)
	}
	block, rest := pem.Decode(request.Spec.Request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(strings.TrimSpace(string(rest))) > 0 {
		return "is not one PEM certificate request"
	}
	asked, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return fmt.Sprintf("cannot be parsed: %v", err)
	}
	if err := asked.CheckSignature(); err != nil {
		return fmt.Sprintf("is not signed by its own key: %v", err)
	}
	return p.subject(asked, request.Spec.Username, node)
}

func (p policy) subject(asked *x509.CertificateRequest, user, node string) string {
	if asked.Subject.CommonName != user {
		return fmt.Sprintf("common name %q is not the requestor %q", asked.Subject.CommonName, user)
	}
	if !slices.Equal(asked.Subject.Organization, []string{"system:nodes"}) {
		return fmt.Sprintf("organizations %q are not [system:nodes]", asked.Subject.Organization)
	}
	if len(asked.EmailAddresses) > 0 || len(asked.URIs) > 0 {
		return "names mail addresses or URIs"
	}
	if len(asked.DNSNames)+len(asked.IPAddresses) == 0 {
		return "names neither a DNS name nor an address"
	}
	for _, name := range asked.DNSNames {
		if !p.anyName && name != node && !strings.HasPrefix(name, node+".") {
			return fmt.Sprintf("DNS name %q is not of node %q", name, node)
		}
	}
	for _, ip := range asked.IPAddresses {
		address, _ := netip.AddrFromSlice(ip)
		address = address.Unmap()
		if address.IsLoopback() || address.IsUnspecified() || address.IsMulticast() {
			return fmt.Sprintf("address %s is not a node's", address)
		}
		within := func(prefix netip.Prefix) bool { return prefix.Contains(address) }
		if len(p.prefixes) > 0 && !slices.ContainsFunc(p.prefixes, within) {
			return fmt.Sprintf("address %s is in none of -provider-ip-prefixes", address)
		}
	}
	return ""
}

func usages(asked []certificates.KeyUsage) string {
	server := false
	for _, usage := range asked {
		switch usage {
		case certificates.UsageServerAuth:
			server = true
		case certificates.UsageDigitalSignature, certificates.UsageKeyEncipherment:
		default:
			return fmt.Sprintf("asks for the usage %q", usage)
		}
	}
	if !server {
		return "does not ask for the usage \"server auth\""
	}
	return ""
}
