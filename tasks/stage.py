"""Everything that does not touch the running service, on all hosts in parallel."""

from pyinfra.api import deploy

from sparkfleet.deploy import session
from sparkfleet.deploy.operations import install_node_program, keep_verifying, lacking, stage_release, sync_models


@deploy("Stage")
def stage() -> None:
    """Put program, weights, image and release on every host, and prove them, before the first engine stops."""
    if lacking("program"):
        install_node_program(name="Stage: install sparknode")
    if lacking("timer"):
        keep_verifying(name="Stage: weekly verification on or off")
    if lacking("weights"):
        sync_models(name="Stage: sync target and drafter")
    if lacking("release"):
        stage_release(name="Stage: verify weights, pull image, write release")


# Run alone, it brings everything that a later rollout needs and touches nothing that serves.
if __name__ != "tasks.stage":
    session.intends("stage")
    stage()
