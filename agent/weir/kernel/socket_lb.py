# SPDX-License-Identifier: Apache-2.0
"""Whether somebody rewrites addresses at connect(2), as load balancers in the socket layer do (Cilium's)."""

from __future__ import annotations

import os
from collections.abc import Iterable

from weir.kernel import bpf

#: enum bpf_attach_type
_INET4_CONNECT, _INET6_CONNECT = 10, 11
_EFFECTIVE = 1


def found(cgroups: Iterable[str]) -> bool:
    """Whether a program is attached to connect(2) of any of these cgroup v2 folders."""
    for folder in cgroups:
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            if any(bpf.attached(fd, kind, _EFFECTIVE) for kind in (_INET4_CONNECT, _INET6_CONNECT)):
                return True
        except OSError:
            continue
        finally:
            os.close(fd)
    return False
