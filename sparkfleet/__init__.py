"""Controller side: pure decisions over the catalogue, and the thin edge that carries them to the nodes."""

from pathlib import Path

# The checkout: the catalogue, the templates and the node's program stand beside this package.
ROOT = Path(__file__).resolve().parent.parent
