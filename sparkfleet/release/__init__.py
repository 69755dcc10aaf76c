"""From a choice to one release named by its content, or to the rule that refuses it. Pure, but for lock and registry.

Imports `catalog` and the node's own parsers.
"""
