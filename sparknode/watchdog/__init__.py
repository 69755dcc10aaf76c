"""The look each minute: does the engine live, and is a restart what it needs.

Imports of this project only `base`, `state`, `host`, `engine`, `gates`, `models`, `activate`, `facts`.
"""
