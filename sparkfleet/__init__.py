"""Controller side: pure decisions over the catalogue, and the thin edge that carries them to the nodes."""
