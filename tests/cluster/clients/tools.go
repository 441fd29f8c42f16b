// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package tools names the programs that scripts/control-plane builds at the versions of go.mod.
package tools

import (
	_ "helm.sh/helm/v3/cmd/helm"
	_ "sigs.k8s.io/kustomize/kustomize/v5"
)
