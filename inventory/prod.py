"""A sample fleet: replace the hosts with yours. Every list is a group; the order is the order of the roll-out.

pyinfra inventory/prod.py deploy.py --dry        what would change, and nothing is changed
pyinfra inventory/prod.py deploy.py              after a look at the plan
"""

# The first wave: one host that takes a new release alone, before any other is touched.
canary = [
    ("spark-01.local", {"ssh_user": "nvidia"}),
]

fleet = [
    ("spark-02.local", {"ssh_user": "nvidia"}),
    ("spark-03.local", {"ssh_user": "nvidia", "profile": "production"}),
    # A host can set single vLLM arguments differently; the plan marks them.
    ("spark-04.local", {"ssh_user": "nvidia", "overrides": {"max_num_seqs": 16}}),
]
