"""What the preflight says of every host, and a bundle of each, without secrets, for whoever helps. Read-only on the
hosts, and safe during a rollout.

pyinfra inventory/prod.py tasks/doctor.py --limit spark-03.local
"""

from sparkfleet.deploy import look, session

session.intends("look")
look.doctor()
