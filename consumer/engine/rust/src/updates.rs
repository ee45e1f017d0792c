//! What one record shows of a participant and its communications, normalized. As `core/updates.py`.

use std::sync::Arc;

use crate::lifecycle::Text;
use crate::state::{CommunicationDetails, Media, Observation, ParticipantDetails, Version};
use crate::timestamps::Time;

/// One communication as a record shows it.
#[derive(Debug)]
pub struct CommunicationUpdate {
    pub media: Media,
    pub communication_id: Option<Text>,
    pub session_digest: Option<Text>,
    /// Without the snapshot time, which is that of the record.
    pub version: Version,
    pub details: Arc<CommunicationDetails>,
    /// No time stands for that of the snapshot.
    pub observations: Vec<Observation>,
}

/// One participant as a record shows it.
#[derive(Debug)]
pub struct ParticipantUpdate {
    pub participant_id: Option<Text>,
    pub details: Arc<ParticipantDetails>,
    pub updates: Vec<CommunicationUpdate>,
    pub shown: Shown,
}

/// What of an update matters although nothing in it is new.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    pub anomalies: Vec<Anomaly>,
    /// The newest plausible time.
    pub newest: Time,
    pub lists_communications: bool,
    /// Whether the participant has a state on itself, as only the flat shape does.
    pub has_state: bool,
    /// Communications listed, usable or not.
    pub listed: usize,
}

/// The anomalies that occur in what the native engine accepts. The others of `core/reasons.py` are declined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anomaly {
    ParticipantWithoutId,
    CommunicationWithoutId,
    CommunicationWithoutState,
    AmbiguousCommunication,
    UnknownState,
    UnknownDisconnectType,
}

pub const ANOMALIES: [&str; 6] = [
    "participant_without_id",
    "communication_without_id",
    "communication_without_state",
    "ambiguous_communication",
    "unknown_state",
    "unknown_disconnect_type",
];
