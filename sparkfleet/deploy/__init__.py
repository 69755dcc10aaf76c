"""The run as pyinfra drives it: the session, the operations and the waves.

Imports `catalog`, `release`, `preflight`, `inventory`, `rollout`, `report`, `node`, `artefacts` and the node's own
parsers.
"""
