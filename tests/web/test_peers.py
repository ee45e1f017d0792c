"""Which addresses are one peer."""

import pytest

from consumer.web.peers import peer_of


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_an_ipv4_address_or_an_ipv6_network_is_a_peer(address: str, peer: str) -> None:
    assert peer_of(address) == peer
