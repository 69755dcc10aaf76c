"""What a person reads of a run: while it goes, and afterwards. Starts nothing.

Imports `catalog`, `release`, `preflight`, `inventory`, `rollout` and the node's own parsers.
"""
