# SPDX-License-Identifier: Apache-2.0
"""Names from the Kubernetes API: pods, services, nodes, and the networks that pods are on."""
