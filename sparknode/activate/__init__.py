"""The state machine of an activation, and the ways into it.

Imports of this project only `base`, `state`, `host`, `engine`, `gates`, `models`.
"""
