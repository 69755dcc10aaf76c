"""A sample fleet: replace the hosts with yours. Every list is a group; the rollout follows the order of the hosts.

pyinfra inventory/prod.py deploy.py --dry        show what would change, without changing it
pyinfra inventory/prod.py deploy.py              show the plan, then deploy
"""

# The first wave: one host that takes a new release alone, before the rollout touches any other.
canary = [
    ("spark-01.local", {"ssh_user": "nvidia"}),
]

fleet = [
    ("spark-02.local", {"ssh_user": "nvidia"}),
    ("spark-03.local", {"ssh_user": "nvidia", "profile": "production"}),
    # A host can override single vLLM arguments; the plan marks them.
    ("spark-04.local", {"ssh_user": "nvidia", "overrides": {"max_num_seqs": 16}}),
]
