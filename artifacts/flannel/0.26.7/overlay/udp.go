// SPDX-License-Identifier: Apache-2.0

// Package udp stands for flannel's backend of that name, which is left out: it is flannel's only part written in C,
// and without it flanneld builds to the same bytes everywhere, with no C compiler.
package udp
