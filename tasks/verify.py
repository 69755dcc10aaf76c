"""Hash every model on every host again, without a network, and name what is damaged by file. No model is changed.

pyinfra inventory/prod.py tasks/verify.py -y
"""

from sparkfleet.deploy import session
from sparkfleet.deploy.operations import verify_models

session.intends("verify")
verify_models(name="Verify the weights")
