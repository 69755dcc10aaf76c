"""Whatever dies at whatever line of an upgrade or a way back: the host serves old or new, verified, by itself."""
