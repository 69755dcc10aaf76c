"""Cases on two hosts each; `pytest -n 2` runs them side by side, every worker on hosts of its own."""
