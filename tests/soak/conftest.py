# SPDX-License-Identifier: Apache-2.0
"""The soak ring: everything at once and for long, with exact totals at the end."""

from __future__ import annotations

from tests.kernel.conftest import _ready, instance

__all__ = ["_ready", "instance"]
