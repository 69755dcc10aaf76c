"""Seeded random walks over a fleet of the real node program on pretended machines; what must hold is always held."""
