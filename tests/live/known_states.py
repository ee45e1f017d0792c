"""What a version of the service knows of states: its decoder reads them, and encodes them again.

Run with the tree of that version as PYTHONPATH. Reads and writes JSON: states without `source` by conversation id.
"""

import json
import sys
from typing import Any

import msgspec
from msgspec import Struct

from schemas.state import CommunicationDetails, ConversationState, ParticipantDetails

_SOURCE = {"topic": "", "partition": 0, "offset": 0}


def reread(document: dict[str, Any]) -> dict[str, Any]:
    """A state as this version writes it. Raises msgspec.ValidationError if this version cannot read it."""
    state = msgspec.json.decode(json.dumps(document | {"source": _SOURCE}), type=ConversationState)
    known: dict[str, Any] = json.loads(msgspec.json.encode(state))
    del known["source"]
    for participant in known.get("participants", ()):
        _leave_out_unknown(participant, "detailTimes", ParticipantDetails)
        for communication in participant.get("communications", ()):
            _leave_out_unknown(communication, "detailVersions", CommunicationDetails)
            if communication.get("ownDetails") == communication["details"]:  # they differ in what is not known only
                del communication["ownDetails"]
    return known


def _leave_out_unknown(owner: dict[str, Any], versions: str, details: type[Struct]) -> None:
    """Drop the versions of details that this version does not have."""
    known = {
        name: owner[versions][name] for name in owner.get(versions, ()) if name in details.__struct_encode_fields__
    }
    owner.pop(versions, None)
    if known:
        owner[versions] = known


if __name__ == "__main__":
    json.dump({key: reread(document) for key, document in json.load(sys.stdin).items()}, sys.stdout)
