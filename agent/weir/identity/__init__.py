# SPDX-License-Identifier: Apache-2.0
"""Who is at each end of an edge."""
