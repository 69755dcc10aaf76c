"""Hash every model on every host again, without a network, and name what is damaged by file. No model is changed.

pyinfra inventory/prod.py tasks/verify.py -y
"""

from sparkfleet import session
from sparkfleet.operations import verify_models

session.intends("verify")
verify_models(name="Verify the weights")
