"""What runs here, and how it differs from its release.

Imports of this project only `base`, `state`.
"""
