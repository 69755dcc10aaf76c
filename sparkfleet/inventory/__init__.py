"""What the operator wrote: hosts and their settings, validated before any host is asked.

Imports `catalog`, `release`, `preflight` and the node's own parsers.
"""
