"""The serving engine, seen from outside: its HTTP side, its log, its container.

Imports of this project only `base`, `state`, `host`.
"""
