"""Is this host fit for its release: the facts in, findings out.

Imports `catalog`, `release` and the node's own parsers.
"""
