# SPDX-License-Identifier: Apache-2.0
"""``python -m weir``."""

from weir.cli import main

main()
