//! The state of a conversation in memory. As `schemas/state.py`, whose fields have the same names.

use std::sync::Arc;

use crate::lifecycle::Text;
use crate::registers::{Older, Registers};
use crate::timestamps::{NO_TIME, Time};

/// The media, sorted; a medium is an index into them.
pub const MEDIA: [&str; 11] = [
    "call",
    "callback",
    "chat",
    "cobrowse",
    "email",
    "internalmessage",
    "message",
    "screenmonitoring",
    "screenshare",
    "socialexpression",
    "video",
];
pub type Media = u8;
pub const CALL: Media = 0;
pub const CALLBACK: Media = 1;
pub const CHAT: Media = 2;
pub const COBROWSE: Media = 3;
pub const EMAIL: Media = 4;
pub const INTERNAL_MESSAGE: Media = 5;
pub const MESSAGE: Media = 6;
pub const SCREEN_MONITORING: Media = 7;
pub const SOCIAL_EXPRESSION: Media = 9;

/// Sources of a time, best first.
pub const TIME_CLASSES: [&str; 3] = ["provider", "state", "snapshot"];
pub type TimeClass = u8;
pub const OF_PROVIDER: TimeClass = 0;
pub const OF_STATE: TimeClass = 1;
pub const OF_SNAPSHOT: TimeClass = 2;

pub const STANDINGS: [&str; 3] = ["alone", "joined", "ambiguous"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Alone,
    Joined,
    Ambiguous,
}

impl Standing {
    /// In the order of `STANDINGS`.
    pub const ALL: [Standing; 3] = [Standing::Alone, Standing::Joined, Standing::Ambiguous];
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub state: Text,
    pub rank: u8,
    pub time: Time,
    pub time_class: TimeClass,
    pub cycle: Time,
}

/// Compared field by field in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub rank: u8,
    pub cycle: Time,
    pub own_time: Time,
    pub snapshot_time: Time,
}

pub const COMMUNICATION_DETAILS: [&str; 19] = [
    "initialState",
    "disconnectType",
    "provider",
    "direction",
    "held",
    "muted",
    "peerId",
    "messageType",
    "wrapupCode",
    "wrapupDurationSeconds",
    "afterCallWorkRequired",
    "afterCallWorkState",
    "afterCallWorkStartTime",
    "afterCallWorkEndTime",
    "cobrowseSessionDigest",
    "roomDigest",
    "cobrowseRole",
    "controlling",
    "viewable",
];
pub const INITIAL_STATE: usize = 0;
pub const DISCONNECT_TYPE: usize = 1;
pub const PROVIDER: usize = 2;
pub const DIRECTION: usize = 3;
pub const HELD: usize = 4;
pub const MUTED: usize = 5;
pub const PEER_ID: usize = 6;
pub const MESSAGE_TYPE: usize = 7;
pub const WRAPUP_CODE: usize = 8;
pub const WRAPUP_DURATION_SECONDS: usize = 9;
pub const AFTER_CALL_WORK_REQUIRED: usize = 10;
pub const AFTER_CALL_WORK_STATE: usize = 11;
pub const AFTER_CALL_WORK_START_TIME: usize = 12;
pub const AFTER_CALL_WORK_END_TIME: usize = 13;
pub const COBROWSE_SESSION_DIGEST: usize = 14;
pub const ROOM_DIGEST: usize = 15;
pub const COBROWSE_ROLE: usize = 16;
pub const CONTROLLING: usize = 17;
pub const VIEWABLE: usize = 18;
pub type CommunicationDetails = Registers<19>;

pub const PARTICIPANT_DETAILS: [&str; 6] =
    ["purpose", "userId", "queueId", "teamId", "externalContactId", "wrapupRequired"];
pub const PURPOSE: usize = 0;
pub const USER_ID: usize = 1;
pub const QUEUE_ID: usize = 2;
pub const TEAM_ID: usize = 3;
pub const EXTERNAL_CONTACT_ID: usize = 4;
pub const WRAPUP_REQUIRED: usize = 5;
pub type ParticipantDetails = Registers<6>;

pub type Timeline = Arc<Vec<Observation>>;

#[derive(Clone, Debug)]
pub struct CommunicationState {
    pub media: Media,
    pub details: CommunicationDetails,
    pub version: Version,
    pub timeline: Timeline,
    pub communication_id: Option<Text>,
    pub session_digest: Option<Text>,
    pub standing: Option<Standing>,
    pub joined_to: Option<Text>,
    pub state: Option<Text>,
    pub state_time: Time,
    pub time_class: TimeClass,
    pub began: Time,
    pub live: bool,
    pub detail_versions: Older<Version>,
    pub own_details: Option<Box<CommunicationDetails>>,
    pub other_session_digests: Vec<Text>,
}

impl CommunicationState {
    /// The details that a communication showed itself.
    pub fn own_details(&self) -> &CommunicationDetails {
        self.own_details.as_deref().unwrap_or(&self.details)
    }

    pub fn is_flat(&self) -> bool {
        self.communication_id.is_none()
    }
}

#[derive(Clone, Debug)]
pub struct ParticipantState {
    pub participant_id: Text,
    pub snapshot_time: Time,
    pub details: ParticipantDetails,
    pub communications: Vec<Arc<CommunicationState>>,
    pub detail_times: Older<Time>,
}

impl ParticipantState {
    /// A participant before its first update.
    pub fn new(participant_id: Text, details: ParticipantDetails) -> Self {
        ParticipantState {
            participant_id,
            snapshot_time: NO_TIME,
            details,
            communications: Vec::new(),
            detail_times: Vec::new(),
        }
    }
}

/// What of a conversation derives from its communications.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub live: i64,
    /// Counts by medium and state, sorted.
    pub communications: Vec<((Media, Text), i64)>,
    /// When live communications began, by medium, sorted and without repetition.
    pub live_since: Vec<(Media, Vec<Time>)>,
}

/// The input record that caused an output.
#[derive(Clone, Debug)]
pub struct Source {
    pub topic: Text,
    pub partition: i64,
    pub offset: i64,
}
