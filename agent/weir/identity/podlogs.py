# SPDX-License-Identifier: Apache-2.0
"""Pods of this node by name without the Kubernetes API: from the folders of their logs.

A kubelet makes ``/var/log/pods/NAMESPACE_NAME_UID`` for each of its pods, before the first container
starts (BuildPodLogsDirectory in pkg/kubelet/kuberuntime); the uid is that of the pod's cgroup.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from weir.identity.types import Owner

FOLDER = Path("/var/log/pods")
_FOLDER_NAME = re.compile(r"([a-z0-9-]{1,63})_([a-z0-9.-]{1,253})_([0-9a-f-]{32,36})")
#: Pods that are remembered; a node has 110 by default.
_LIMIT = 4096
_BETWEEN = 1.0


class LocalPods:
    """Names by uid, as the folder has them; looked at again for a uid that is not known, once a second."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock
        self._known: dict[str, tuple[str, str]] = {}
        self._next = float("-inf")

    def named(self, owner: Owner) -> Owner:
        """The same with its pod's name and namespace, where these are known; what made it is not."""
        found = self._known.get(owner.uid)
        if found is None and self._clock() >= self._next:
            self._next = self._clock() + _BETWEEN
            self._known = self._listed()
            found = self._known.get(owner.uid)
        if found is None:
            return owner
        namespace, name = found
        return replace(owner, workload=name, kind="pod", namespace=namespace, pod=name)

    def _listed(self) -> dict[str, tuple[str, str]]:
        known: dict[str, tuple[str, str]] = {}
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if (parts := _FOLDER_NAME.fullmatch(entry.name)) and len(known) < _LIMIT:
                        known[parts[3]] = parts[1], parts[2]
        except OSError:
            return self._known
        return known
