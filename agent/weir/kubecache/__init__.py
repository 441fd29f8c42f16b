# SPDX-License-Identifier: Apache-2.0
"""``weir kube-cache``: one watcher of the Kubernetes API for thousands of agents.

It serves the part of the API that agents use, with the few fields that they need, under the API's own paths
and rules: an agent is told ``--api-server`` of the cache, and nothing else of it changes.
"""
