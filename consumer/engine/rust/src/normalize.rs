//! Normalize one participant of a record with its communications, in whichever shape it came. As `core/normalize.py`
//! and `core/details.py`.

use blake2b_simd::Params;

use crate::decline::Decline;
use crate::envelope::AnyParticipant;
use crate::event_time::{EventTimes, observe, read};
use crate::lifecycle::{DISCONNECTED, LIVE, Text, fold_case, is_known_disconnect_type, rank, share};
use crate::registers::Value;
use crate::state::*;
use crate::timestamps::{NO_TIME, Time};
use crate::updates::{Anomaly, CommunicationUpdate, ParticipantUpdate, Shown};
use crate::wire::{Communication, FlatParticipant, Name, Participant, Passing, Reference, WireTime, Wrapup, get};

const CONTROLLED_MAX: usize = 2_000;
const DURATION_MAX_S: i64 = 1 << 53;

/// Normalizes the participants of one record.
pub struct Normalizer<'a> {
    pub digest_key: &'a [u8],
    /// The latest plausible time.
    pub latest: Time,
    pub listed_max: usize,
}

impl Normalizer<'_> {
    pub fn normalize(&self, participant: &AnyParticipant) -> Result<ParticipantUpdate, Decline> {
        match participant {
            AnyParticipant::Nested(participant) => self.normalize_nested(participant),
            AnyParticipant::Flat(participant, medium) => self.normalize_flat(participant, *medium),
        }
    }

    fn normalize_nested(&self, participant: &Participant) -> Result<ParticipantUpdate, Decline> {
        let mut details = ParticipantDetails::default();
        details.set_text(PURPOSE, fold(&participant.purpose)?);
        details.set_text(USER_ID, text(&participant.user_id));
        details.set_text(QUEUE_ID, text(&participant.queue_id));
        details.set_text(TEAM_ID, text(&participant.team_id));
        details.set_text(EXTERNAL_CONTACT_ID, text(&participant.external_contact_id));
        details.set_flag(WRAPUP_REQUIRED, participant.wrapup_required);
        let participant_id = text(&participant.id);
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
        Ok(complete(participant_id, details, updates, shown))
    }

    fn normalize_flat(&self, participant: &FlatParticipant, medium: Media) -> Result<ParticipantUpdate, Decline> {
        let mut details = ParticipantDetails::default();
        details.set_text(PURPOSE, fold(&participant.purpose)?);
        details.set_text(USER_ID, id_of(&participant.user));
        details.set_text(QUEUE_ID, id_of(&participant.queue));
        details.set_text(TEAM_ID, id_of(&participant.team));
        details.set_text(EXTERNAL_CONTACT_ID, id_of(&participant.external_contact));
        details.set_flag(WRAPUP_REQUIRED, participant.wrapup_required);
        let participant_id = text(&participant.id);
        let mut shown = Shown { listed: 1, ..Shown::default() };
        let mut updates = Vec::new();
        if participant_id.is_some() {
            updates.extend(self.normalize_flat_communication(participant, medium, &mut shown.anomalies)?);
        }
        Ok(complete(participant_id, details, updates, shown))
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
        }
        match media {
            CALL => details.set_flag(MUTED, communication.muted),
            MESSAGE => details.set_text(MESSAGE_TYPE, fold(&communication.message_type)?),
            COBROWSE => {
                let (session, role) = (&communication.cobrowse_session_id, &communication.cobrowse_role);
                let (controlling, viewer_url) = (&communication.controlling, &communication.viewer_url);
                self.add_cobrowse(&mut details, session, role, controlling, viewer_url)?;
                details.set_text(ROOM_DIGEST, self.digest(&communication.room_id));
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
        details.set_text(PEER_ID, text(&participant.peer));
        details.0[AFTER_CALL_WORK_START_TIME] = self.read_detail(participant.start_acw_time)?;
        details.0[AFTER_CALL_WORK_END_TIME] = self.read_detail(participant.end_acw_time)?;
        match medium {
            CALL => details.set_flag(MUTED, participant.muted),
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
            let mut controlled: Vec<&str> = controlling.iter().filter_map(get).collect();
            controlled.sort_unstable();
            controlled.dedup();
            details.0[CONTROLLING] = Some(Value::Texts(controlled.into_iter().map(Text::from).collect()));
        }
        if get(viewer_url).is_some() {
            details.set_flag(VIEWABLE, Some(true));
        }
        Ok(())
    }

    fn read(&self, wire: WireTime) -> Result<Time, Decline> {
        read(wire, self.latest)
    }

    fn read_detail(&self, wire: WireTime) -> Result<Option<Value>, Decline> {
        let time = self.read(wire)?;
        Ok((time != NO_TIME).then_some(Value::Time(time)))
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
    shown.newest = updates.iter().map(|update| update.version.own_time).max().unwrap_or(NO_TIME);
    ParticipantUpdate { participant_id, details, updates, shown }
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
        details,
    })
}

fn add_wrapup(details: &mut CommunicationDetails, wrapup: &Option<Wrapup>) {
    let Some(wrapup) = wrapup else { return };
    details.set_text(WRAPUP_CODE, text(&wrapup.code));
    let duration = wrapup.duration_seconds.filter(|seconds| (-DURATION_MAX_S..=DURATION_MAX_S).contains(seconds));
    details.0[WRAPUP_DURATION_SECONDS] = duration.map(Value::Integer);
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
