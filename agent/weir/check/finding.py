# SPDX-License-Identifier: Apache-2.0
"""One line of `weir check`, and how an attempt's answer becomes its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from weir.kernel.refusal import Cause, explain
from weir.kernel.sandbox import Sandbox
from weir.kernel.trials import Trial

#: found; replaced (something else does it); missing (the kernel or host has it not);
#: refused (it is there, but not for this process); unknown (could not be told).
STATES = ("found", "replaced", "missing", "refused", "unknown")


@dataclass(frozen=True)
class Finding:
    """One feature. ``fatal`` when Weir cannot run so; ``cause`` one word why, for what is refused."""

    feature: str
    state: str
    detail: str
    effect: str = ""
    remedy: str = ""
    fatal: bool = False
    cause: str = ""


@dataclass(frozen=True)
class Judge:
    """Answers of the trials, with the cause of each refusal."""

    trials: Mapping[str, Trial]
    box: Sandbox

    def refusal(self, *names: str) -> Cause | None:
        """Why the first refused of these trials was."""
        for name in names:
            trial = self.trials.get(name)
            if trial and trial.error and (trial.refused or self._hidden(trial)):
                return explain(trial, self.box)
        return None

    def _hidden(self, trial: Trial) -> bool:
        """Lockdown hides a helper that all kernels with BPF iterators have: EINVAL, and it is a refusal."""
        return trial.name == "read" and "bpf_probe_read_kernel" in trial.log

    def failed(self, *names: str) -> Trial | None:
        """The first of these trials that the kernel could not do, whatever the rights."""
        tried = (self.trials.get(name) for name in names)
        return next((t for t in tried if t and t.error and not (t.refused or self._hidden(t))), None)

    def finding(
        self,
        feature: str,
        there: bool,
        needs: tuple[str, ...],
        detail: str,
        effect: str,
        remedy: str = "a newer kernel",
        instead: str = "",
        fatal: bool = False,
    ) -> Finding:
        """``there``: what BTF or files tell; ``needs``: the trials it takes; ``instead``: what replaces it.

        ``effect`` and ``remedy`` are for where it cannot be had; a refusal has its own remedy.
        """
        if not there or (bad := self.failed(*needs)):
            why = "" if not there else f" ({bad.name}: {bad.text})" if bad else ""
            state = "replaced" if instead else "missing"
            return Finding(
                feature, state, (instead or detail) + why, effect, "" if instead else remedy, fatal
            )
        if cause := self.refusal(*needs):
            return Finding(feature, "refused", cause.why, effect, cause.mend, fatal, cause.name)
        return Finding(feature, "found", detail)
