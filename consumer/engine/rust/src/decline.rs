//! Why a record is left to the Python core: it is not ordinary, though it may be good.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decline {
    /// A tombstone, an envelope without a conversation, or a frame that is not common.
    Envelope,
    /// JSON that is broken, odd or of other types.
    Json,
    /// A topic that is not ASCII.
    Topic,
    /// A time that is missing, unreadable or implausible, or that a republished record brings along.
    Time,
    /// A key that is not the conversation's id, and not in a common spelling.
    Key,
    /// Participants or communications that are listed twice, or in the other shape, or not usable.
    Participants,
    /// More than one of the limits allows.
    Limits,
    /// A conversation that is first seen after its retention, or again after its eviction.
    Late,
    /// A stored state that this engine does not read.
    State,
}

impl Decline {
    pub fn name(self) -> &'static str {
        match self {
            Decline::Envelope => "envelope",
            Decline::Json => "json",
            Decline::Topic => "topic",
            Decline::Time => "time",
            Decline::Key => "key",
            Decline::Participants => "participants",
            Decline::Limits => "limits",
            Decline::Late => "late",
            Decline::State => "state",
        }
    }
}

impl From<serde_json::Error> for Decline {
    fn from(_: serde_json::Error) -> Self {
        Decline::Json
    }
}
