"""Who a client is taken to be, when clients share what the ports have to give."""

import ipaddress
from typing import Final

_NETWORK_BITS: Final = 64
"""Of IPv6 a single machine usually has this whole network to choose addresses from."""


def peer_of(address: str) -> str:
    """The peer of a client's address: an IPv4 address, or a network of IPv6."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return str(ipaddress.ip_network((ip, _NETWORK_BITS), strict=False))
        ip = ip.ipv4_mapped
    return str(ip)
