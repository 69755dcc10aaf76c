"""Hosts that are only a network namespace, a folder and a shaped link: for spreading models between them.

They run the node's program as it is, and need neither systemd nor Docker, so that eight and more fit on two cores.
"""
