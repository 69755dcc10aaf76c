"""The same deploy and the same gates with the real vLLM (its CPU build) inside the hosts."""
