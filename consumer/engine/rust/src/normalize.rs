//! Normalize one participant of a record with its communications, in whichever shape it came. As `core/normalize.py`
//! and `core/details.py`.

use std::cell::Cell;
use std::sync::Arc;

use blake2b_simd::Params;

use crate::decline::Decline;
use crate::envelope::AnyParticipant;
use crate::event_time::{EventTimes, observe, read};
use crate::lifecycle::{DISCONNECTED, LIVE, Text, fold_case, is_known_disconnect_type, rank, share};
use crate::registers::Value;
use crate::state::*;
use crate::state_codec::put_objects;
use crate::timestamps::{LATEST_MS, NO_TIME, Time};
use crate::updates::{Anomaly, CommunicationUpdate, ParticipantUpdate, Shown};
use crate::wire::{
    self, Address, Communication, ConversationProperties, DisconnectReason, ErrorInfo, Few, FlatParticipant, Name,
    Participant, Passing, Reference, RoutingData, TransferUser, WireTime, Wrapup, get,
};

const CONTROLLED_MAX: usize = 2_000;
const NUMBER_MAX: i64 = 1 << 53;

/// Normalizes the participants of one record.
pub struct Normalizer<'a> {
    digest_key: &'a [u8],
    /// The latest plausible time.
    pub latest: Time,
    listed_max: usize,
    /// The newest time that the participant at hand shows.
    newest: Cell<Time>,
}

impl<'a> Normalizer<'a> {
    pub fn new(digest_key: &'a [u8], latest: Time, listed_max: usize) -> Self {
        Normalizer { digest_key, latest, listed_max, newest: Cell::new(NO_TIME) }
    }
}

impl Normalizer<'_> {
    pub fn normalize(&self, participant: &AnyParticipant) -> Result<ParticipantUpdate, Decline> {
        self.newest.set(NO_TIME);
        match participant {
            AnyParticipant::Nested(participant) => self.normalize_nested(participant),
            AnyParticipant::Flat(participant, medium) => self.normalize_flat(participant, *medium),
        }
    }

    fn normalize_nested(&self, participant: &Participant) -> Result<ParticipantUpdate, Decline> {
        let participant_id = text(&participant.id);
        let details = self.read_participant(participant)?;
        let has_state = participant.state.is_some_and(|state| !matches!(state.0, "null" | "\"\""));
        let mut shown = Shown { has_state, ..Shown::default() };
        let mut updates = Vec::new();
        for (media, communications) in participant.arrays().into_iter().enumerate() {
            let Some(communications) = communications else { continue };
            shown.lists_communications = true;
            shown.listed += communications.len();
            if shown.listed > self.listed_max {
                return Err(Decline::Limits);
            }
            if participant_id.is_none() {
                continue;
            }
            for communication in communications.iter().flatten() {
                updates.extend(self.normalize_communication(communication, media as Media, &mut shown.anomalies)?);
            }
        }
        shown.newest = self.newest.get();
        Ok(complete(participant_id, details, updates, shown))
    }

    fn normalize_flat(&self, participant: &FlatParticipant, medium: Media) -> Result<ParticipantUpdate, Decline> {
        let participant_id = text(&participant.id);
        let details = read_flat_participant(participant)?;
        let mut shown = Shown { listed: 1, ..Shown::default() };
        let mut updates = Vec::new();
        if participant_id.is_some() {
            updates.extend(self.normalize_flat_communication(participant, medium, &mut shown.anomalies)?);
        }
        shown.newest = self.newest.get();
        Ok(complete(participant_id, details, updates, shown))
    }

    pub fn read_conversation(&self, properties: &ConversationProperties) -> Result<ConversationDetails, Decline> {
        let mut details = ConversationDetails::default();
        details.set_text(EXTERNAL_TAG, text(&properties.external_tag));
        if let Some(memberships) = &properties.divisions {
            details.set_texts(DIVISION_IDS, memberships.iter().filter_map(|member| id_of(&member.division)).collect());
        }
        if let Some(transfers) = &properties.recent_transfers {
            details.0[RECENT_TRANSFERS] = Some(self.read_transfers(transfers)?);
        }
        Ok(details)
    }

    /// The transfers that have an id, in the order of their published bytes.
    fn read_transfers(&self, listed: &Few<wire::Transfer>) -> Result<Value, Decline> {
        let mut transfers = Vec::new();
        for transfer in listed.iter() {
            let Some(transfer_id) = text(&transfer.id) else { continue };
            let user_id = |user: &Option<TransferUser>| user.as_ref().and_then(|user| text(&user.user_id));
            let transfer = Transfer {
                transfer_id,
                state: fold(&transfer.state)?,
                kind: fold(&transfer.kind)?,
                time: read(transfer.date_issued, self.latest)?,
                initiator_user_id: user_id(&transfer.initiator),
                destination_user_id: user_id(&transfer.destination),
            };
            transfers.push(transfer.encode());
        }
        transfers.sort_unstable();
        transfers.dedup();
        Ok(if transfers.is_empty() { Value::Texts([].into()) } else { put_objects(&transfers) })
    }

    fn read_participant(&self, participant: &Participant) -> Result<ParticipantDetails, Decline> {
        let mut details = ParticipantDetails::default();
        details.set_text(PURPOSE, fold(&participant.purpose)?);
        details.set_text(USER_ID, text(&participant.user_id));
        details.set_text(QUEUE_ID, text(&participant.queue_id));
        details.set_text(TEAM_ID, text(&participant.team_id));
        details.set_text(EXTERNAL_CONTACT_ID, text(&participant.external_contact_id));
        details.set_flag(WRAPUP_REQUIRED, participant.wrapup_required);
        details.set_text(GROUP_ID, text(&participant.group_id));
        details.set_text(CONSULT_PARTICIPANT_ID, text(&participant.consult_participant_id));
        details.set_text(MONITORED_PARTICIPANT_ID, text(&participant.monitored_participant_id));
        details.set_text(COACHED_PARTICIPANT_ID, text(&participant.coached_participant_id));
        details.set_text(BARGED_PARTICIPANT_ID, text(&participant.barged_participant_id));
        add_routing(&mut details, &participant.routing);
        if let Some(wrapup) = &participant.wrapup {
            details.set_text(PARTICIPANT_WRAPUP_CODE, text(&wrapup.code));
            details.0[PARTICIPANT_WRAPUP_DURATION_SECONDS] = number(wrapup.duration_seconds);
        }
        if get(&participant.id).is_some() {
            details.0[PARTICIPANT_WORK_START_TIME] = self.read_detail(participant.start_acw_time)?;
            details.0[PARTICIPANT_WORK_END_TIME] = self.read_detail(participant.end_acw_time)?;
        }
        Ok(details)
    }

    /// A communication of the nested shape; None, and an anomaly, without an id or a state.
    fn normalize_communication(
        &self,
        communication: &Communication,
        media: Media,
        anomalies: &mut Vec<Anomaly>,
    ) -> Result<Option<CommunicationUpdate>, Decline> {
        let Some(communication_id) = text(&communication.id) else {
            anomalies.push(Anomaly::CommunicationWithoutId);
            return Ok(None);
        };
        let Some(state) = get(&communication.state) else {
            anomalies.push(Anomaly::CommunicationWithoutState);
            return Ok(None);
        };
        let details = self.read_details(communication, media)?;
        let only = |is_shown: bool, time| if is_shown { time } else { WireTime::Absent };
        let times = EventTimes {
            provider: self.read(only(media == COBROWSE, communication.provider_event_time))?,
            alerting: self.read(only(media != SCREEN_MONITORING, communication.start_alerting_time))?,
            connected: self.read(communication.connected_time)?,
            disconnected: self.read(communication.disconnected_time)?,
            parked: self.read(only(media == EMAIL || media == MESSAGE, communication.park_time))?,
        };
        update_communication(media, Some(communication_id), state, details, &times, anomalies).map(Some)
    }

    /// The communication on a participant of the flat shape; None, and an anomaly, without a state.
    fn normalize_flat_communication(
        &self,
        participant: &FlatParticipant,
        medium: Media,
        anomalies: &mut Vec<Anomaly>,
    ) -> Result<Option<CommunicationUpdate>, Decline> {
        let Some(state) = get(&participant.state) else {
            anomalies.push(Anomaly::CommunicationWithoutState);
            return Ok(None);
        };
        let details = self.read_flat_details(participant, medium)?;
        let provider = if medium == COBROWSE { participant.provider_event_time } else { WireTime::Absent };
        let times = EventTimes {
            provider: self.read(provider)?,
            alerting: NO_TIME,
            connected: self.read(participant.connected_time)?,
            disconnected: self.read(participant.end_time)?,
            parked: self.read(participant.park_time)?,
        };
        update_communication(medium, None, state, details, &times, anomalies).map(Some)
    }

    fn read_details(&self, communication: &Communication, media: Media) -> Result<CommunicationDetails, Decline> {
        let mut details = CommunicationDetails::default();
        details.set_text(INITIAL_STATE, fold(&communication.initial_state)?);
        details.set_text(DISCONNECT_TYPE, fold(&communication.disconnect_type)?);
        details.set_text(PROVIDER, text(&communication.provider));
        if matches!(media, CALL | CALLBACK | EMAIL | MESSAGE) {
            details.set_text(DIRECTION, fold(&communication.direction)?);
        }
        if matches!(media, CALL | CALLBACK | CHAT | EMAIL | MESSAGE | SOCIAL_EXPRESSION) {
            details.set_flag(HELD, communication.held);
            details.0[HOLD_START_TIME] = self.read_detail(communication.start_hold_time)?;
        }
        if matches!(media, CALL | EMAIL | MESSAGE) {
            details.set_text(ERROR_CODE, code_of(&communication.error_info));
        }
        match media {
            CALL => {
                details.set_flag(MUTED, communication.muted);
                add_reasons(&mut details, &communication.disconnect_reasons)?;
            }
            CALLBACK => details.0[CALLBACK_SCHEDULED_TIME] = read_plan(communication.callback_scheduled_time)?,
            MESSAGE => details.set_text(MESSAGE_TYPE, fold(&communication.message_type)?),
            COBROWSE => {
                let (session, role) = (&communication.cobrowse_session_id, &communication.cobrowse_role);
                let (controlling, viewer_url) = (&communication.controlling, &communication.viewer_url);
                self.add_cobrowse(&mut details, session, role, controlling, viewer_url)?;
                details.set_text(ROOM_DIGEST, self.digest(&communication.room_id));
                details.set_text(ENDPOINT_DIGEST, self.digest_endpoint(&communication.endpoint));
            }
            _ => {}
        }
        if !matches!(media, INTERNAL_MESSAGE | SCREEN_MONITORING) {
            details.set_text(PEER_ID, text(&communication.peer_id));
            details.set_flag(AFTER_CALL_WORK_REQUIRED, communication.after_call_work_required);
            if let Some(work) = &communication.after_call_work {
                details.set_text(AFTER_CALL_WORK_STATE, fold(&work.state)?);
                details.0[AFTER_CALL_WORK_START_TIME] = self.read_detail(work.start_time)?;
                details.0[AFTER_CALL_WORK_END_TIME] = self.read_detail(work.end_time)?;
            }
            add_wrapup(&mut details, &communication.wrapup);
        }
        Ok(details)
    }

    fn read_flat_details(&self, participant: &FlatParticipant, medium: Media) -> Result<CommunicationDetails, Decline> {
        let mut details = CommunicationDetails::default();
        details.set_text(INITIAL_STATE, fold(&participant.initial_state)?);
        details.set_text(DISCONNECT_TYPE, fold(&participant.disconnect_type)?);
        details.set_text(PROVIDER, text(&participant.provider));
        details.set_text(DIRECTION, fold(&participant.direction)?);
        details.set_flag(HELD, participant.held);
        details.0[HOLD_START_TIME] = self.read_detail(participant.start_hold_time)?;
        details.set_text(ERROR_CODE, code_of(&participant.error_info));
        details.set_text(PEER_ID, text(&participant.peer));
        details.0[AFTER_CALL_WORK_START_TIME] = self.read_detail(participant.start_acw_time)?;
        details.0[AFTER_CALL_WORK_END_TIME] = self.read_detail(participant.end_acw_time)?;
        match medium {
            CALL => details.set_flag(MUTED, participant.muted),
            CALLBACK => details.0[CALLBACK_SCHEDULED_TIME] = read_plan(participant.callback_scheduled_time)?,
            MESSAGE => details.set_text(MESSAGE_TYPE, fold(&participant.message_type)?),
            COBROWSE => {
                let (session, role) = (&participant.cobrowse_session_id, &participant.cobrowse_role);
                let (controlling, viewer_url) = (&participant.controlling, &participant.viewer_url);
                self.add_cobrowse(&mut details, session, role, controlling, viewer_url)?;
            }
            _ => {}
        }
        add_wrapup(&mut details, &participant.wrapup);
        Ok(details)
    }

    fn add_cobrowse(
        &self,
        details: &mut CommunicationDetails,
        session_id: &Option<Passing>,
        role: &Option<Name>,
        controlling: &Option<Vec<Option<Name>>>,
        viewer_url: &Option<Passing>,
    ) -> Result<(), Decline> {
        details.set_text(COBROWSE_SESSION_DIGEST, self.digest(session_id));
        details.set_text(COBROWSE_ROLE, fold(role)?);
        if let Some(controlling) = controlling {
            if controlling.len() > CONTROLLED_MAX {
                return Err(Decline::Limits);
            }
            details.set_texts(CONTROLLING, controlling.iter().filter_map(get).map(Text::from).collect());
        }
        if get(viewer_url).is_some() {
            details.set_flag(VIEWABLE, Some(true));
        }
        Ok(())
    }

    fn read(&self, wire: WireTime) -> Result<Time, Decline> {
        let time = read(wire, self.latest)?;
        self.newest.set(self.newest.get().max(time));
        Ok(time)
    }

    fn read_detail(&self, wire: WireTime) -> Result<Option<Value>, Decline> {
        let time = self.read(wire)?;
        Ok((time != NO_TIME).then_some(Value::Time(time)))
    }

    /// A digest of an address, where there is a key.
    fn digest_endpoint(&self, endpoint: &Option<Address>) -> Option<Text> {
        let address = endpoint.as_ref().filter(|_| !self.digest_key.is_empty())?;
        self.digest(if get(&address.normalized).is_some() { &address.normalized } else { &address.raw })
    }

    /// What is kept of an id that grants access to what it names.
    fn digest(&self, secret: &Option<Passing>) -> Option<Text> {
        let secret = get(secret)?;
        let hash = Params::new().hash_length(16).key(self.digest_key).hash(secret.as_bytes());
        Some(Text::from(hash.to_hex().as_str()))
    }
}

fn complete(
    participant_id: Option<Text>,
    details: ParticipantDetails,
    updates: Vec<CommunicationUpdate>,
    mut shown: Shown,
) -> ParticipantUpdate {
    if participant_id.is_none() {
        shown.anomalies.push(Anomaly::ParticipantWithoutId);
    }
    ParticipantUpdate { participant_id, details: Arc::new(details), updates, shown }
}

fn update_communication(
    media: Media,
    communication_id: Option<Text>,
    wire_state: &str,
    details: CommunicationDetails,
    times: &EventTimes,
    anomalies: &mut Vec<Anomaly>,
) -> Result<CommunicationUpdate, Decline> {
    let state = fold_case(wire_state).ok_or(Decline::Json)?;
    let rank = rank(&state).unwrap_or_else(|| {
        anomalies.push(Anomaly::UnknownState);
        if times.disconnected == NO_TIME { LIVE } else { DISCONNECTED }
    });
    if details.text(DISCONNECT_TYPE).is_some_and(|value| !is_known_disconnect_type(value)) {
        anomalies.push(Anomaly::UnknownDisconnectType);
    }
    let cycle = if rank == LIVE { times.parked } else { NO_TIME };
    let of_detail = |field: usize| match &details.0[field] {
        Some(Value::Time(time)) => *time,
        _ => NO_TIME,
    };
    let own_time = [
        times.provider,
        times.connected,
        times.disconnected,
        times.parked,
        of_detail(AFTER_CALL_WORK_START_TIME),
        of_detail(AFTER_CALL_WORK_END_TIME),
    ];
    let own_time = own_time.into_iter().max().unwrap_or(NO_TIME);
    let session_digest = if communication_id.is_none() { details.text(COBROWSE_SESSION_DIGEST).cloned() } else { None };
    Ok(CommunicationUpdate {
        media,
        communication_id,
        session_digest,
        version: Version { rank, cycle, own_time, snapshot_time: NO_TIME },
        observations: observe(&state, rank, cycle, times),
        details: Arc::new(details),
    })
}

fn add_wrapup(details: &mut CommunicationDetails, wrapup: &Option<Wrapup>) {
    let Some(wrapup) = wrapup else { return };
    details.set_text(WRAPUP_CODE, text(&wrapup.code));
    details.0[WRAPUP_DURATION_SECONDS] = number(wrapup.duration_seconds);
}

fn add_routing(details: &mut ParticipantDetails, routing: &Option<RoutingData>) {
    let Some(routing) = routing else { return };
    details.set_text(ROUTING_LANGUAGE_ID, id_of(&routing.language));
    details.0[ROUTING_PRIORITY] = number(routing.priority);
    if let Some(skills) = &routing.skills {
        details.set_texts(ROUTING_SKILL_IDS, skills.iter().filter_map(|skill| text(&skill.id)).collect());
    }
}

/// The codes of disconnect reasons, each with its protocol.
fn add_reasons(details: &mut CommunicationDetails, reasons: &Option<Few<DisconnectReason>>) -> Result<(), Decline> {
    let Some(reasons) = reasons else { return Ok(()) };
    let mut codes = Vec::new();
    for reason in reasons.iter() {
        if let (Some(kind), Some(Value::Integer(code))) = (fold(&reason.kind)?, number(reason.code)) {
            codes.push(Text::from(format!("{kind}:{code}")));
        }
    }
    details.set_texts(DISCONNECT_REASONS, codes);
    Ok(())
}

fn read_flat_participant(participant: &FlatParticipant) -> Result<ParticipantDetails, Decline> {
    let mut details = ParticipantDetails::default();
    details.set_text(PURPOSE, fold(&participant.purpose)?);
    details.set_text(USER_ID, id_of(&participant.user));
    details.set_text(QUEUE_ID, id_of(&participant.queue));
    details.set_text(TEAM_ID, id_of(&participant.team));
    details.set_text(EXTERNAL_CONTACT_ID, id_of(&participant.external_contact));
    details.set_flag(WRAPUP_REQUIRED, participant.wrapup_required);
    details.set_text(GROUP_ID, id_of(&participant.group));
    details.set_text(CONSULT_PARTICIPANT_ID, text(&participant.consult_participant_id));
    details.set_text(MONITORED_PARTICIPANT_ID, text(&participant.monitored_participant_id));
    details.set_text(COACHED_PARTICIPANT_ID, text(&participant.coached_participant_id));
    details.set_text(BARGED_PARTICIPANT_ID, text(&participant.barged_participant_id));
    add_routing(&mut details, &participant.routing);
    Ok(details)
}

/// The time of a plan, which may be as late as it likes.
fn read_plan(wire: WireTime) -> Result<Option<Value>, Decline> {
    let time = read(wire, LATEST_MS)?;
    Ok((time != NO_TIME).then_some(Value::Time(time)))
}

/// A number that every reader of JSON has exactly.
fn number(shown: Option<i64>) -> Option<Value> {
    shown.filter(|number| (-NUMBER_MAX..=NUMBER_MAX).contains(number)).map(Value::Integer)
}

fn code_of(error: &Option<ErrorInfo>) -> Option<Text> {
    error.as_ref().and_then(|error| text(&error.code))
}

fn id_of(reference: &Option<Reference>) -> Option<Text> {
    reference.as_ref().and_then(|reference| text(&reference.id))
}

fn text(name: &Option<Name>) -> Option<Text> {
    get(name).map(share)
}

fn fold(name: &Option<Name>) -> Result<Option<Text>, Decline> {
    get(name).map(|value| fold_case(value).ok_or(Decline::Json)).transpose()
}
