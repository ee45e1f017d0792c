"""States of a communication and their ranks. Enumerations of Genesys Cloud are open: unknown values are kept."""

from typing import Final

BEFORE: Final = 0
LIVE: Final = 1
DISCONNECTED: Final = 2
TERMINATED: Final = 3

PARKED: Final = "parked"
CONNECTED: Final = "connected"
ALERTING: Final = "alerting"

BEFORE_ORDER: Final = {
    state: index for index, state in enumerate(("none", "scheduled", "offering", "contacting", "dialing", "alerting"))
}
"""States before the communication is live, in the order in which they happen if their times are equal."""

RANKS: Final = (
    dict.fromkeys(BEFORE_ORDER, BEFORE)
    | dict.fromkeys((CONNECTED, PARKED, "uploading", "converting", "transmitting"), LIVE)
    | {"disconnected": DISCONNECTED, "terminated": TERMINATED}
)
"""The rank of every state that the public models name."""

DISCONNECT_TYPES: Final = frozenset(
    (
        "client",
        "endpoint",
        "endpoint.dnd",
        "endpoint.donotdisturb",
        "error",
        "inactivity",
        "other",
        "peer",
        "session.expired",
        "spam",
        "system",
        "takeover",
        "timeout",
        "transfer",
        "transfer.conference",
        "transfer.consult",
        "transfer.dnd",
        "transfer.donotdisturb",
        "transfer.forward",
        "transfer.noanswer",
        "transfer.notavailable",
        "transport.failure",
        "uncallable",
    )
)
"""Every disconnect type that the public models name: those of notifications, and the REST API's where they differ."""

_CANONICAL: Final = frozenset(RANKS) | DISCONNECT_TYPES | {"inbound", "outbound", "customer", "agent", "acd"}
"""Frequent values that are folded already: looking them up is faster than folding them."""


def fold_case(value: str) -> str:
    """Fold an enumeration value to the spelling that is kept: older models write `TRANSFER_CONFERENCE`."""
    return value if value in _CANONICAL else value.lower().replace("_", ".")
