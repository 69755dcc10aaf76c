"""One document about this host: what is read, and what it means.

Imports of this project only `base`, `state`, `host`, `engine`, `gates`, `models`, `activate`.
"""
