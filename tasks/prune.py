"""Remove releases, models, images and caches that no release needs any more; see keep_releases in group_data/all.py.

pyinfra inventory/prod.py tasks/prune.py --dry       what would go
pyinfra inventory/prod.py tasks/prune.py             the same, and after a yes it goes
"""

from sparkfleet.deploy import session
from sparkfleet.deploy.operations import prune_host

session.intends("prune")
prune_host(name="Prune")
