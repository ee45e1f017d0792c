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

/// Declares the details of one kind of owner, in the order in which they are published: an index for each.
macro_rules! details {
    ($registers:ident = $names:ident { $($index:ident = $name:literal,)* }) => {
        pub const $names: [&str; [$($name),*].len()] = [$($name),*];
        pub type $registers = Registers<{ $names.len() }>;
        details!(@index 0; $($index)*);
    };
    (@index $number:expr;) => {};
    (@index $number:expr; $index:ident $($others:ident)*) => {
        pub const $index: usize = $number;
        details!(@index $number + 1; $($others)*);
    };
}

details! {
    CommunicationDetails = COMMUNICATION_DETAILS {
        INITIAL_STATE = "initialState",
        DISCONNECT_TYPE = "disconnectType",
        PROVIDER = "provider",
        DIRECTION = "direction",
        HELD = "held",
        MUTED = "muted",
        PEER_ID = "peerId",
        MESSAGE_TYPE = "messageType",
        WRAPUP_CODE = "wrapupCode",
        WRAPUP_DURATION_SECONDS = "wrapupDurationSeconds",
        AFTER_CALL_WORK_REQUIRED = "afterCallWorkRequired",
        AFTER_CALL_WORK_STATE = "afterCallWorkState",
        AFTER_CALL_WORK_START_TIME = "afterCallWorkStartTime",
        AFTER_CALL_WORK_END_TIME = "afterCallWorkEndTime",
        COBROWSE_SESSION_DIGEST = "cobrowseSessionDigest",
        ROOM_DIGEST = "roomDigest",
        COBROWSE_ROLE = "cobrowseRole",
        CONTROLLING = "controlling",
        VIEWABLE = "viewable",
        HOLD_START_TIME = "holdStartTime",
        ERROR_CODE = "errorCode",
        DISCONNECT_REASONS = "disconnectReasons",
        CALLBACK_SCHEDULED_TIME = "callbackScheduledTime",
        ENDPOINT_DIGEST = "endpointDigest",
    }
}

details! {
    ParticipantDetails = PARTICIPANT_DETAILS {
        PURPOSE = "purpose",
        USER_ID = "userId",
        QUEUE_ID = "queueId",
        TEAM_ID = "teamId",
        EXTERNAL_CONTACT_ID = "externalContactId",
        WRAPUP_REQUIRED = "wrapupRequired",
        GROUP_ID = "groupId",
        CONSULT_PARTICIPANT_ID = "consultParticipantId",
        MONITORED_PARTICIPANT_ID = "monitoredParticipantId",
        COACHED_PARTICIPANT_ID = "coachedParticipantId",
        BARGED_PARTICIPANT_ID = "bargedParticipantId",
        ROUTING_LANGUAGE_ID = "routingLanguageId",
        ROUTING_PRIORITY = "routingPriority",
        ROUTING_SKILL_IDS = "routingSkillIds",
        PARTICIPANT_WRAPUP_CODE = "wrapupCode",
        PARTICIPANT_WRAPUP_DURATION_SECONDS = "wrapupDurationSeconds",
        PARTICIPANT_WORK_START_TIME = "afterCallWorkStartTime",
        PARTICIPANT_WORK_END_TIME = "afterCallWorkEndTime",
    }
}

details! {
    ConversationDetails = CONVERSATION_DETAILS {
        EXTERNAL_TAG = "externalTag",
        DIVISION_IDS = "divisionIds",
        RECENT_TRANSFERS = "recentTransfers",
    }
}

/// The names of the details of the owner that has so many.
pub fn detail_names(count: usize) -> &'static [&'static str] {
    const OWNERS: [&[&str]; 3] = [&COMMUNICATION_DETAILS, &PARTICIPANT_DETAILS, &CONVERSATION_DETAILS];
    const { assert!(OWNERS[0].len() != OWNERS[1].len() && OWNERS[1].len() != OWNERS[2].len()) };
    OWNERS.into_iter().find(|names| names.len() == count).expect("it is the number of some owner's")
}

pub type Timeline = Arc<Vec<Observation>>;

#[derive(Clone, Debug)]
pub struct CommunicationState {
    pub media: Media,
    pub details: Arc<CommunicationDetails>,
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
    pub own_details: Option<Arc<CommunicationDetails>>,
    pub other_session_digests: Vec<Text>,
}

impl CommunicationState {
    /// The details that a communication showed itself.
    pub fn own_details(&self) -> &Arc<CommunicationDetails> {
        self.own_details.as_ref().unwrap_or(&self.details)
    }

    pub fn is_flat(&self) -> bool {
        self.communication_id.is_none()
    }
}

#[derive(Clone, Debug)]
pub struct ParticipantState {
    pub participant_id: Text,
    pub snapshot_time: Time,
    pub details: Arc<ParticipantDetails>,
    pub communications: Vec<Arc<CommunicationState>>,
    pub detail_times: Older<Time>,
}

impl ParticipantState {
    /// A participant before its first update.
    pub fn new(participant_id: Text, details: Arc<ParticipantDetails>) -> Self {
        ParticipantState {
            participant_id,
            snapshot_time: NO_TIME,
            details,
            communications: Vec::new(),
            detail_times: Vec::new(),
        }
    }
}

/// A transfer of a conversation.
pub struct Transfer {
    pub transfer_id: Text,
    pub state: Option<Text>,
    pub kind: Option<Text>,
    pub time: Time,
    pub initiator_user_id: Option<Text>,
    pub destination_user_id: Option<Text>,
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
