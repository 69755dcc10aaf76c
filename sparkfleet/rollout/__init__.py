"""One run: which hosts, in which order, when to stop, where a rollback leads, which exit code. Pure.

Imports `catalog`, `release`, `preflight`, `inventory` and the node's own parsers.
"""
