// SPDX-License-Identifier: Apache-2.0

// Package tencentvpc stands for flannel's backend of that name, which is left out with the cloud's SDK that it brings.
package tencentvpc
