//go:build tools

// Package tools names the program that is built, so that what it needs is pinned.
package tools

import _ "sigs.k8s.io/metrics-server/cmd/metrics-server"
