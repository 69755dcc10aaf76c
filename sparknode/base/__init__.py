"""The machine's edge: files, programs, HTTP, JSON, locks.

Imports no other package of this project.
"""
