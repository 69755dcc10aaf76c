"""Weights and images onto the hosts: downloaded once, proven, then given from host to host.

Imports `catalog`, `release`, `preflight`, `inventory`, `rollout`, `report`, `node` and the node's own parsers.
"""
