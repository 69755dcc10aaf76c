"""What a node is told to prove of a drafter depends on how it drafts."""

from __future__ import annotations

from sparkfleet import ROOT
from sparkfleet.artefacts import drafter_checks
from sparkfleet.catalog import load

LAB = ROOT / "tests" / "lab" / "catalog"


def test_a_dflash_drafter_names_the_layers_of_its_target() -> None:
    drafter = load().models["gemma4-26b-a4b-nvfp4"].drafter
    assert drafter
    checks = drafter_checks(drafter)
    assert checks["target_layer_ids"] == [1, 6, 11, 17, 22, 27]
    assert checks["block_size"] == 16


def test_a_drafter_that_is_a_small_model_names_none() -> None:
    drafter = load((LAB,)).models["lab-spelling"].drafter
    assert drafter
    assert drafter_checks(drafter) == {}
