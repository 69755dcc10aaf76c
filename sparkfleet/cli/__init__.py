"""The commands of `sparkfleet`.

Imports `catalog`, `release`, `preflight`, `inventory`, `rollout`, `report`, `node`, `artefacts`, `deploy`, `interop`
and the node's own parsers.
"""
