"""The steps of a run, each for every host before the next begins; `deploy.py` has them in their order."""

from __future__ import annotations

from pyinfra.api import deploy

from sparkfleet.deploy import ending, operations, session
from sparkfleet.deploy.actions import refuse_unfit
from sparkfleet.preflight.repairs import REPAIRS
from sparkfleet.rollout.intents import ROLLING


def plan() -> None:
    """Settle the waves and print what is about to happen; what cannot work ends the run here. Once a run."""
    session.current().plan()


def preflight(*, alone: bool = False) -> None:
    """Check every host before any is changed; all reasons of all hosts are shown, and one unfit host ends the run."""
    session.require("deploy", "preflight")
    ending.print_findings(alone=alone)
    refuse_unfit()


@deploy("Repair")
def repair() -> None:
    """Every host registers each repair that any host asks for, so that pyinfra keeps one order."""
    session.require("deploy", "repair")
    asked = {name for host in session.run().hosts.values() for name in host.settings.repairs}
    for what in [name for name in REPAIRS if name in asked]:
        operations.repair(name=f"Repair: {what}", what=what)


@deploy("Stage")
def stage() -> None:
    """Put program, weights, image and release on every host, and prove them, before the first engine stops."""
    session.require("deploy", "stage")
    if operations.lacking("program"):
        operations.install_node_program(name="Stage: install sparknode")
    if operations.lacking("timer"):
        operations.keep_verifying(name="Stage: weekly verification on or off")
    if operations.lacking("readiness"):
        operations.answer_readiness(name="Stage: answer readiness or not")
    if operations.lacking("weights"):
        operations.sync_models(name="Stage: sync target and drafter")
    if operations.lacking("release"):
        operations.stage_release(name="Stage: verify weights, pull image, write release")


@deploy("Roll out")
def roll_out() -> None:
    """Stop, start and prove, wave by wave; each node rolls back by itself when its gates fail."""
    session.require(*ROLLING)
    if session.current().intent != "deploy":
        # Nothing is staged for these, and they need the node's program all the same.
        operations.install_node_program(name="Install sparknode")
    waves = session.run().waves
    if waves:
        operations.roll_out(name=f"Roll out in {len(waves)} waves" if len(waves) > 1 else "Roll out in one wave")
    ending.print_at_end()
