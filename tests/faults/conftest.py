# SPDX-License-Identifier: Apache-2.0
"""The ring of faults: what fails once, and what must hold all the same."""

from __future__ import annotations

from tests.kernel.conftest import _ready, instance, netns

__all__ = ["_ready", "instance", "netns"]
