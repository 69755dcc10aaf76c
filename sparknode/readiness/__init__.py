"""May requests be sent to this host? Answered over HTTP for any balancer, without the controller.

Imports of this project only `base`, `state`, `host`, `engine`, `gates`, `models`, `activate`, `facts`, `watchdog`.
"""
