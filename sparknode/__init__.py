"""The program on each node: it measures, stages, activates, and decides for itself whether to go back.

Standard library only and Python 3.10 or newer, because it must run on a host that has nothing but `python3`.
"""

SCHEMAS = {"bundle": 1, "fetch": 1, "journal": 1, "probe": 1, "release": 1, "spread": 1, "stage": 1}
# Why an activation is made, where it is not a deploy.
ROLLBACK, RESTART = INTENTS = ("rollback", "restart")
# A gate's verdict on a figure that was measured while others were served.
NOT_JUDGED = "not-judged"
