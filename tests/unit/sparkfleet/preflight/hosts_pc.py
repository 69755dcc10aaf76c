"""PCs of the field and their cards."""

from __future__ import annotations

from collections.abc import Mapping

from tests.unit.sparkfleet.preflight.defects import gpu
from tests.unit.sparkfleet.preflight.fieldhosts import FieldHost, pc

HOSTS: Mapping[str, FieldHost] = {
    # PCs and their cards.
    "an idle 5090": pc((), ("mem.headroom", "MemAvailable is 31"), True),
    "a card with 595": pc((), ("DGX", "driver.version"), True, driver="595.71.05"),
    "a card with 610": pc((), ("DGX", "driver.version"), True, driver="610.57.04"),
    "a card with 580.95": pc((), "driver.version", True, driver="580.95.05"),
    "a card with 570": pc(("fail: driver.version", "ubuntu-drivers"), ("DGX", "fwupdmgr"), False, driver="570.133.20"),
    "Arch": pc("fail: driver.version", ("DGX", "apt"), False, driver="570.133.20", system="ID=arch\n"),
    "Mint": pc("ubuntu-drivers", "DGX", False, driver="570.133.20", system='ID=linuxmint\nID_LIKE="ubuntu debian"\n'),
    "an OEM kernel": pc((), "kernel.version", True, kernel="6.17.0-1021-oem"),
    "another OEM kernel": pc((), "kernel.version", True, kernel="6.17.0-1008-oem"),
    **{
        f"a {name}": pc((), "gpu.kind", True, name=f"NVIDIA {name}", memory=memory)
        for name, memory in {
            "RTX PRO 6000 Blackwell Workstation Edition": "97887, 97000",
            "RTX PRO 6000 Blackwell Max-Q Workstation Edition": "97887, 97000",
            "RTX PRO 5000 Blackwell": "48935, 48300",
            "RTX PRO 5000 72GB Blackwell": "73415, 72900",
            "RTX PRO 4500 Blackwell": "32623, 32100",
            "RTX PRO 4000 Blackwell SFF Edition": "24467, 24000",
            "RTX PRO 3000 Blackwell Generation Laptop GPU": "12227, 12000",
            "GeForce RTX 5080 Laptop GPU": "16303, 15900",
        }.items()
    },
    "a card of the generation before": pc(
        "fail: gpu.kind", "set hardware", False, name="NVIDIA RTX 5000 Ada Generation", memory="32760, 32000"
    ),
    "two cards": pc(
        "leave the host out",
        "set the host's hardware",
        False,
        row=gpu("NVIDIA GeForce RTX 5090", "12.0", rest="38, 14, 208, 0, 32607, 32100") * 2,
    ),
    **{
        f"a PC by {vendor}": pc(
            "rtx50, ",
            ("ThinkStation PGX", "Ascent", "EdgeXpert", "ZGX", "Founders"),
            True,
            vendor=vendor,
            product=product,
        )
        for vendor, product in {
            "LENOVO": "30GS001234",
            "HP": "HP Z2 Tower G9",
            "MSI": "MS-7E06",
            "ASUSTeK COMPUTER INC.": "ROG STRIX",
            "Dell Inc.": "Precision 7960",
            "NVIDIA": "DGX Station",
        }.items()
    },
}
