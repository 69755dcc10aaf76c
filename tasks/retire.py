"""Give hosts back: drained, stopped, and without what the tool put there. Name them: --limit HOST.

pyinfra inventory/prod.py tasks/retire.py --limit spark-07.local
"""

from sparkfleet.deploy import session
from sparkfleet.deploy.operations import retire

session.intends("retire")
retire(name="Retire")
