# SPDX-License-Identifier: Apache-2.0
"""``weir map``: the map page of a whole cluster, from a Prometheus that scrapes its agents."""
