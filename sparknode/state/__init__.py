"""What is written on this node, and who may change it: release, journal, order, lease.

Imports of this project only `base`.
"""
