# SPDX-License-Identifier: Apache-2.0
"""Drain + identity -> frozen snapshot."""

from weir.aggregate.aggregator import Aggregator
from weir.aggregate.snapshot import AgentValues, Snapshot

__all__ = ["AgentValues", "Aggregator", "Snapshot"]
