"""A lab of real hosts on one machine: systemd, sshd and dockerd are real, the GPU and (by default) the engine are not.

Run it as ``python -m tests.lab``; README.md beside this file is the manual.
"""
