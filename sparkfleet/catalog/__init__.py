"""What may run: rows out of `catalog/`, validated where they are read, and the recorded contract of each engine.

Imports no other package of the controller.
"""
