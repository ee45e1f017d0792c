//! The properties that are used of a conversation update. As `schemas/inbound.py`.
//!
//! What is declared here for all media is read of those only that have it, but it has to be of its type wherever it
//! stands: else the record is declined, as it is for a property that stands twice.

use std::borrow::Cow;
use std::ops::Deref;

use crate::decline::Decline;
use crate::parser::{Member, Parser, Raw, Read};

/// Characters of a text that is kept.
const TEXT_LENGTH_MAX: usize = 256;
/// Elements of a list that is kept whole.
const LIST_LENGTH_MAX: usize = 100;

/// A text of the wire that is not kept as it came, borrowed where it is not escaped.
pub struct Passing<'a>(Cow<'a, str>);

impl Deref for Passing<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a> Read<'a> for Passing<'a> {
    fn read(parser: &mut Parser<'a>) -> Result<Self, Decline> {
        parser.read_text().map(Passing)
    }
}

/// A text of the wire that is kept, of bounded length.
pub struct Name<'a>(Passing<'a>);

impl Deref for Name<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a> Read<'a> for Name<'a> {
    fn read(parser: &mut Parser<'a>) -> Result<Self, Decline> {
        let text = Passing::read(parser)?;
        if text.len() > TEXT_LENGTH_MAX && text.chars().count() > TEXT_LENGTH_MAX {
            return Err(Decline::Json);
        }
        Ok(Name(text))
    }
}

/// A list that is kept whole, of bounded length.
pub struct Few<T>(pub Vec<Option<T>>);

impl<'a, T: Read<'a>> Read<'a> for Few<T> {
    fn read(parser: &mut Parser<'a>) -> Result<Self, Decline> {
        let elements = Vec::read(parser)?;
        if elements.len() > LIST_LENGTH_MAX { Err(Decline::Json) } else { Ok(Few(elements)) }
    }
}

impl<T> Few<T> {
    /// Those that are not null.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }
}

/// A text that is not empty, which stands for no value.
pub fn get(text: &Option<impl Deref<Target = str>>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// A time as it stands on the wire.
#[derive(Clone, Copy, Default)]
pub enum WireTime<'a> {
    #[default]
    Absent,
    Text(&'a str),
    Milliseconds(i64),
}

impl<'a> Member<'a> for WireTime<'a> {
    fn read_member(&mut self, parser: &mut Parser<'a>) -> Result<(), Decline> {
        if !matches!(self, WireTime::Absent) {
            return Err(Decline::Json);
        }
        *self = match parser.peek() {
            Some(b'n') => return parser.skip_value(),
            Some(b'"') => match parser.read_text()? {
                Cow::Borrowed(text) => WireTime::Text(text),
                Cow::Owned(_) => return Err(Decline::Json),
            },
            _ => WireTime::Milliseconds(parser.read_integer()?),
        };
        Ok(())
    }
}

/// Declares objects by their members and the names of these.
macro_rules! objects {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty = $json:literal,)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Default)]
            pub struct $name<'a> {
                $(pub $field: $type,)*
            }

            impl<'a> Read<'a> for $name<'a> {
                fn read(parser: &mut Parser<'a>) -> Result<Self, Decline> {
                    let mut object = Self::default();
                    parser.read_members(|parser, name| match name {
                        $($json => object.$field.read_member(parser),)*
                        _ => parser.skip_value(),
                    })?;
                    Ok(object)
                }
            }
        )*
    };
}

pub type Communications<'a> = Option<Vec<Option<Communication<'a>>>>;

objects! {
    Wrapup {
        code: Option<Name<'a>> = "code",
        duration_seconds: Option<i64> = "durationSeconds",
    }

    AfterCallWork {
        state: Option<Name<'a>> = "state",
        start_time: WireTime<'a> = "startTime",
        end_time: WireTime<'a> = "endTime",
    }

    ErrorInfo {
        code: Option<Name<'a>> = "code",
    }

    DisconnectReason {
        kind: Option<Name<'a>> = "type",
        code: Option<i64> = "code",
    }

    Address {
        normalized: Option<Passing<'a>> = "addressNormalized",
        raw: Option<Passing<'a>> = "addressRaw",
    }

    RoutingData {
        language: Option<Reference<'a>> = "language",
        priority: Option<i64> = "priority",
        skills: Option<Few<Reference<'a>>> = "skills",
    }

    TransferUser {
        user_id: Option<Name<'a>> = "userId",
    }

    Transfer {
        id: Option<Name<'a>> = "id",
        state: Option<Name<'a>> = "state",
        kind: Option<Name<'a>> = "transferType",
        date_issued: WireTime<'a> = "dateIssued",
        initiator: Option<TransferUser<'a>> = "initiator",
        destination: Option<TransferUser<'a>> = "destination",
    }

    DivisionMembership {
        division: Option<Reference<'a>> = "division",
    }

    /// A communication of the nested shape, with the properties of all media.
    Communication {
        id: Option<Name<'a>> = "id",
        state: Option<Name<'a>> = "state",
        initial_state: Option<Name<'a>> = "initialState",
        provider: Option<Name<'a>> = "provider",
        disconnect_type: Option<Name<'a>> = "disconnectType",
        connected_time: WireTime<'a> = "connectedTime",
        disconnected_time: WireTime<'a> = "disconnectedTime",
        start_alerting_time: WireTime<'a> = "startAlertingTime",
        start_hold_time: WireTime<'a> = "startHoldTime",
        callback_scheduled_time: WireTime<'a> = "callbackScheduledTime",
        error_info: Option<ErrorInfo<'a>> = "errorInfo",
        disconnect_reasons: Option<Few<DisconnectReason<'a>>> = "disconnectReasons",
        endpoint: Option<Address<'a>> = "self",
        peer_id: Option<Name<'a>> = "peerId",
        wrapup: Option<Wrapup<'a>> = "wrapup",
        after_call_work: Option<AfterCallWork<'a>> = "afterCallWork",
        after_call_work_required: Option<bool> = "afterCallWorkRequired",
        direction: Option<Name<'a>> = "direction",
        held: Option<bool> = "held",
        muted: Option<bool> = "muted",
        message_type: Option<Name<'a>> = "type",
        room_id: Option<Passing<'a>> = "roomId",
        cobrowse_session_id: Option<Passing<'a>> = "cobrowseSessionId",
        cobrowse_role: Option<Name<'a>> = "cobrowseRole",
        controlling: Option<Vec<Option<Name<'a>>>> = "controlling",
        viewer_url: Option<Passing<'a>> = "viewerUrl",
        provider_event_time: WireTime<'a> = "providerEventTime",
        park_time: WireTime<'a> = "parkTime",
    }

    /// A participant in the nested shape.
    Participant {
        id: Option<Name<'a>> = "id",
        purpose: Option<Name<'a>> = "purpose",
        user_id: Option<Name<'a>> = "userId",
        queue_id: Option<Name<'a>> = "queueId",
        team_id: Option<Name<'a>> = "teamId",
        external_contact_id: Option<Name<'a>> = "externalContactId",
        group_id: Option<Name<'a>> = "groupId",
        consult_participant_id: Option<Name<'a>> = "consultParticipantId",
        monitored_participant_id: Option<Name<'a>> = "monitoredParticipantId",
        coached_participant_id: Option<Name<'a>> = "coachedParticipantId",
        barged_participant_id: Option<Name<'a>> = "bargedParticipantId",
        routing: Option<RoutingData<'a>> = "conversationRoutingData",
        wrapup: Option<Wrapup<'a>> = "wrapup",
        start_acw_time: WireTime<'a> = "startAcwTime",
        end_acw_time: WireTime<'a> = "endAcwTime",
        wrapup_required: Option<bool> = "wrapupRequired",
        // On the participant itself, as only the flat shape has it.
        state: Option<Raw<'a>> = "state",
        calls: Communications<'a> = "calls",
        callbacks: Communications<'a> = "callbacks",
        chats: Communications<'a> = "chats",
        cobrowsesessions: Communications<'a> = "cobrowsesessions",
        emails: Communications<'a> = "emails",
        internal_messages: Communications<'a> = "internalMessages",
        messages: Communications<'a> = "messages",
        screen_monitorings: Communications<'a> = "screenMonitorings",
        screenshares: Communications<'a> = "screenshares",
        social_expressions: Communications<'a> = "socialExpressions",
        videos: Communications<'a> = "videos",
    }

    Reference {
        id: Option<Name<'a>> = "id",
    }

    /// A participant in the flat shape: its one communication has no id.
    FlatParticipant {
        id: Option<Name<'a>> = "id",
        purpose: Option<Name<'a>> = "purpose",
        user: Option<Reference<'a>> = "user",
        queue: Option<Reference<'a>> = "queue",
        team: Option<Reference<'a>> = "team",
        external_contact: Option<Reference<'a>> = "externalContact",
        group: Option<Reference<'a>> = "group",
        consult_participant_id: Option<Name<'a>> = "consultParticipantId",
        monitored_participant_id: Option<Name<'a>> = "monitoredParticipantId",
        coached_participant_id: Option<Name<'a>> = "coachedParticipantId",
        barged_participant_id: Option<Name<'a>> = "bargedParticipantId",
        routing: Option<RoutingData<'a>> = "conversationRoutingData",
        wrapup_required: Option<bool> = "wrapupRequired",
        state: Option<Name<'a>> = "state",
        initial_state: Option<Name<'a>> = "initialState",
        provider: Option<Name<'a>> = "provider",
        disconnect_type: Option<Name<'a>> = "disconnectType",
        direction: Option<Name<'a>> = "direction",
        held: Option<bool> = "held",
        start_hold_time: WireTime<'a> = "startHoldTime",
        callback_scheduled_time: WireTime<'a> = "callbackScheduledTime",
        error_info: Option<ErrorInfo<'a>> = "errorInfo",
        muted: Option<bool> = "muted",
        peer: Option<Name<'a>> = "peer",
        message_type: Option<Name<'a>> = "type",
        wrapup: Option<Wrapup<'a>> = "wrapup",
        connected_time: WireTime<'a> = "connectedTime",
        end_time: WireTime<'a> = "endTime",
        park_time: WireTime<'a> = "parkTime",
        start_acw_time: WireTime<'a> = "startAcwTime",
        end_acw_time: WireTime<'a> = "endAcwTime",
        cobrowse_session_id: Option<Passing<'a>> = "cobrowseSessionId",
        cobrowse_role: Option<Name<'a>> = "cobrowseRole",
        controlling: Option<Vec<Option<Name<'a>>>> = "controlling",
        viewer_url: Option<Passing<'a>> = "viewerUrl",
        provider_event_time: WireTime<'a> = "providerEventTime",
    }
}

/// What a body shows of the conversation as a whole.
#[derive(Default)]
pub struct ConversationProperties<'a> {
    pub external_tag: Option<Name<'a>>,
    pub divisions: Option<Few<DivisionMembership<'a>>>,
    pub recent_transfers: Option<Few<Transfer<'a>>>,
}

impl<'a> ConversationProperties<'a> {
    /// Read a member of the body, or skip it.
    pub fn read_member(&mut self, parser: &mut Parser<'a>, name: &str) -> Result<(), Decline> {
        match name {
            "externalTag" => self.external_tag.read_member(parser),
            "divisions" => self.divisions.read_member(parser),
            "recentTransfers" => self.recent_transfers.read_member(parser),
            _ => parser.skip_value(),
        }
    }
}

impl<'a> Participant<'a> {
    /// The eleven arrays, in the order of the media.
    pub fn arrays(&self) -> [&Communications<'a>; 11] {
        [
            &self.calls,
            &self.callbacks,
            &self.chats,
            &self.cobrowsesessions,
            &self.emails,
            &self.internal_messages,
            &self.messages,
            &self.screen_monitorings,
            &self.screenshares,
            &self.social_expressions,
            &self.videos,
        ]
    }
}
