"""TLS libraries in running processes: found, understood, probed."""
