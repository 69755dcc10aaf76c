"""The wire: one program on each host, installed and asked over SSH.

Imports `catalog`, `release`, `preflight`, `inventory`, `rollout`, `report` and the node's own parsers.
"""
