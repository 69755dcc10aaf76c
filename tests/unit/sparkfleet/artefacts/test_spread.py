"""Under which address hosts reach each other: known, or refused."""

from __future__ import annotations

import pytest

from sparkfleet.artefacts.spread import address_of
from sparkfleet.errors import FleetError

# A host with Docker: its bridge comes first, and nobody else reaches it there.
SEEN = ("127.0.0.1", "172.17.0.1", "10.0.0.4", "192.168.100.4")


@pytest.mark.parametrize(
    ("seen", "reached", "subnet", "address"),
    [
        (SEEN, "10.0.0.4", None, "10.0.0.4"),
        (SEEN, "10.0.0.4", "192.168.100.0/24", "192.168.100.4"),
        (SEEN, None, "192.168.100.0/24", "192.168.100.4"),
        (("127.0.0.1", "10.0.0.4"), None, None, "10.0.0.4"),
    ],
)
def test_an_address_that_is_known(seen: tuple[str, ...], reached: str | None, subnet: str | None, address: str) -> None:
    assert address_of(seen, reached, subnet) == address


@pytest.mark.parametrize(
    ("seen", "reached", "subnet", "says"),
    [
        # Behind a jump host, which has no address of the node's; and behind NAT, where the address is the router's.
        (SEEN, None, None, "spread_subnet"),
        (SEEN, "203.0.113.9", None, "spread_subnet"),
        (SEEN, None, "172.30.0.0/16", "no address in 172.30.0.0/16"),
        (("127.0.0.1",), None, None, "only none"),
    ],
)
def test_a_guess_is_refused(seen: tuple[str, ...], reached: str | None, subnet: str | None, says: str) -> None:
    with pytest.raises(FleetError, match=says):
        address_of(seen, reached, subnet)
