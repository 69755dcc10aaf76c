"""Is the engine healthy: one table, one function a gate.

Imports of this project only `base`, `state`, `host`, `engine`.
"""
