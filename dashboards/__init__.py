# SPDX-License-Identifier: Apache-2.0
"""Grafana dashboards, recording and alert rules, made from the metric table by ``python -m dashboards``."""
