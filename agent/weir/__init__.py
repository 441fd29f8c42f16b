# SPDX-License-Identifier: Apache-2.0
import os

# numpy's: Weir's sums need no threads of it, each of which would take memory and keep privileges
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
