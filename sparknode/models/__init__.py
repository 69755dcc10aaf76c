"""Bytes: bring, prove, keep and remove models and images.

Imports of this project only `base`, `state`, `host`, `engine`, `gates`.
"""
