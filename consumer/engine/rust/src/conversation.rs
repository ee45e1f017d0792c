//! Apply a snapshot to the state of a conversation. As `core/conversation.py`.
//!
//! What a snapshot changes is worked out in full before anything is written: a record that is declined on the way, or a
//! bug of ours, leaves the conversation as it was.

use std::sync::Arc;

use crate::lifecycle::Text;
use crate::participant;
use crate::refold::Change;
use crate::registers::{self, Older};
use crate::state::{CommunicationState, ConversationDetails, Media, ParticipantState, Source, Summary};
use crate::state_codec::{self, Header};
use crate::timestamps::{NO_TIME, Time};
use crate::updates::{Anomaly, ParticipantUpdate, Shown};

/// Participants up to which a conversation is searched for one that repeats itself.
const SEARCHED_MAX: usize = 32;

/// A participant with its published bytes, and what its newest update looked like.
pub struct KnownParticipant {
    pub state: ParticipantState,
    /// The published JSON of the participant.
    pub encoded: Vec<u8>,
    /// The JSON of the newest update, kept while every value in it is the current one, and what it shows.
    pub repeated: Option<Repeated>,
}

/// An update that is current in every value.
pub struct Repeated {
    raw: Box<[u8]>,
    medium: Option<Media>,
    shown: Shown,
}

impl KnownParticipant {
    pub fn new(state: ParticipantState) -> Self {
        let encoded = state_codec::encode_participant(&state);
        KnownParticipant { state, encoded, repeated: None }
    }

    /// Whether an update in the bytes of the newest one changes nothing but the snapshot time.
    pub fn repeats(&self, medium: Option<Media>, snapshot_time: Time) -> Option<&Shown> {
        let known = self.repeated.as_ref()?;
        let repeats = snapshot_time > self.state.snapshot_time && known.medium == medium;
        repeats.then_some(&known.shown)
    }

    /// The length of the newest update, if these bytes begin with it. It is an object, so it ends where it did.
    fn begins(&self, bytes: &[u8]) -> Option<usize> {
        let known = self.repeated.as_ref()?;
        bytes.starts_with(&known.raw).then_some(known.raw.len())
    }
}

/// A conversation in memory.
pub struct Conversation {
    pub conversation_id: Text,
    pub snapshot_time: Time,
    pub summary: Summary,
    pub source: Source,
    /// Sorted by id.
    pub participants: Vec<KnownParticipant>,
    pub encoded_summary: Vec<u8>,
    pub details: Arc<ConversationDetails>,
    /// Snapshot times of the details that the newest snapshot left out.
    pub detail_times: Older<Time>,
    /// The published JSON of both.
    pub encoded_details: Vec<u8>,
    /// The indices of the participants that the newest record listed, in its order.
    pub listed: Vec<usize>,
}

impl Conversation {
    /// A conversation before its first snapshot.
    pub fn new(conversation_id: Text, snapshot_time: Time, source: Source) -> Self {
        let summary = Summary::default();
        let encoded_summary = state_codec::encode_summary(&summary);
        Conversation {
            conversation_id,
            snapshot_time,
            summary,
            source,
            participants: Vec::new(),
            encoded_summary,
            details: Arc::default(),
            detail_times: Older::new(),
            encoded_details: Vec::new(),
            listed: Vec::new(),
        }
    }

    /// The index of a participant; an error where it would stand.
    pub fn find(&self, participant_id: &str) -> Result<usize, usize> {
        self.participants.binary_search_by(|known| (*known.state.participant_id).cmp(participant_id))
    }

    /// The participant whose newest update these bytes begin with, and its length. Tried first is the one that the newest
    /// record listed at this position.
    pub fn find_same(&self, bytes: &[u8], position: usize) -> Option<(usize, usize)> {
        let same = |index: usize| {
            let length = self.participants.get(index)?.begins(bytes)?;
            Some((index, length))
        };
        self.listed.get(position).and_then(|index| same(*index)).or_else(|| {
            if self.participants.len() > SEARCHED_MAX {
                return None;
            }
            (0..self.participants.len()).find_map(same)
        })
    }

    fn header(&self) -> Header<'_> {
        Header {
            snapshot_time: self.snapshot_time,
            encoded_summary: &self.encoded_summary,
            conversation_id: &self.conversation_id,
            source: &self.source,
            encoded_details: &self.encoded_details,
        }
    }

    /// The published bytes.
    pub fn encode(&self) -> Vec<u8> {
        state_codec::encode(&self.header(), self.participants.iter().map(|known| known.encoded.as_slice()))
    }
}

/// What a record shows of one participant: the known one at an index repeats itself, or an update.
pub enum Shows<'a> {
    Repeated(usize),
    Update { raw: &'a [u8], medium: Option<Media>, update: Box<ParticipantUpdate> },
}

/// What a snapshot changes of a conversation, not yet written.
pub struct Applied {
    snapshot_time: Time,
    source: Source,
    repeated: Vec<usize>,
    changed: Vec<(Option<usize>, KnownParticipant)>,
    summary: Option<(Summary, Vec<u8>)>,
    details: Option<NewDetails>,
    pub changes: Vec<Change>,
    pub anomalies: Vec<Anomaly>,
    pub is_usable: bool,
    /// Whether the record says anything new.
    pub is_changed: bool,
}

/// The details of a conversation, their times, and both as published.
struct NewDetails(Arc<ConversationDetails>, Older<Time>, Vec<u8>);

/// Work out what a snapshot changes. Each participant is shown once.
pub fn apply(
    known: &Conversation,
    details: &Arc<ConversationDetails>,
    shows: Vec<Shows<'_>>,
    snapshot_time: Time,
    source: Source,
    cycles_max: usize,
) -> Applied {
    let mut applied = Applied {
        snapshot_time: snapshot_time.max(known.snapshot_time),
        source,
        repeated: Vec::new(),
        changed: Vec::new(),
        summary: None,
        details: merge_details(known, details, snapshot_time),
        changes: Vec::new(),
        anomalies: Vec::new(),
        is_usable: shows.is_empty(),
        is_changed: snapshot_time > known.snapshot_time,
    };
    applied.is_changed |= applied.details.is_some();
    let mut is_refolded = false;
    for shown in shows {
        let (raw, medium, update) = match shown {
            Shows::Repeated(index) => {
                let shown = known.participants[index].repeated.iter().flat_map(|known| &known.shown.anomalies);
                applied.anomalies.extend(shown);
                applied.repeated.push(index);
                applied.is_usable = true;
                applied.is_changed = true;
                continue;
            }
            Shows::Update { raw, medium, update } => (raw, medium, update),
        };
        applied.anomalies.extend(&update.shown.anomalies);
        let Some(participant_id) = update.participant_id.clone() else { continue };
        applied.is_usable = true;
        let index = known.find(&participant_id).ok();
        let first;
        let before = match index {
            Some(index) => &known.participants[index].state,
            None => {
                first = ParticipantState::new(participant_id, update.details.clone());
                &first
            }
        };
        let Some(result) = participant::merge(before, &update, snapshot_time, cycles_max) else { continue };
        applied.is_changed = true;
        is_refolded |= result.is_refolded;
        applied.changes.extend(result.changes);
        applied.anomalies.extend(result.anomalies);
        let mut participant = KnownParticipant::new(result.participant);
        if result.supersedes_all {
            participant.repeated = Some(Repeated { raw: raw.into(), medium, shown: update.shown });
        }
        applied.changed.push((index, participant));
    }
    if is_refolded {
        let summary = summarize(applied.participants(known));
        let encoded = state_codec::encode_summary(&summary);
        applied.summary = Some((summary, encoded));
    }
    applied
}

/// The details of the conversation after a snapshot, if they or their times change.
fn merge_details(known: &Conversation, update: &Arc<ConversationDetails>, snapshot_time: Time) -> Option<NewDetails> {
    let merged = registers::merge(&known.details, known.snapshot_time, &known.detail_times, update, snapshot_time);
    let (details, _, times) = merged?;
    if details == known.details && times == known.detail_times {
        return None;
    }
    let encoded = state_codec::encode_details(&details, &times);
    Some(NewDetails(details, times, encoded))
}

impl Applied {
    /// The states of all participants after the snapshot, in any order.
    fn participants<'b>(&'b self, known: &'b Conversation) -> impl Iterator<Item = &'b KnownParticipant> {
        let is_replaced = |index: usize| self.changed.iter().any(|(changed, _)| *changed == Some(index));
        let kept = known.participants.iter().enumerate().filter(move |(index, _)| !is_replaced(*index));
        kept.map(|(_, participant)| participant).chain(self.changed.iter().map(|(_, participant)| participant))
    }

    /// The size of the published state, and how many communications it has.
    pub fn measure(&self, known: &Conversation) -> (usize, usize) {
        let (mut size, mut count, mut communications) = (0, 0, 0);
        for participant in self.participants(known) {
            size += participant.encoded.len() + 1;
            count += 1;
            communications += participant.state.communications.len();
        }
        let header = Header {
            snapshot_time: self.snapshot_time,
            encoded_summary: self.summary.as_ref().map_or(&known.encoded_summary, |(_, encoded)| encoded),
            conversation_id: &known.conversation_id,
            source: &self.source,
            encoded_details: self.details.as_ref().map_or(&known.encoded_details, |NewDetails(_, _, encoded)| encoded),
        };
        (state_codec::measure(&header, size, count), communications)
    }

    /// Write the changes into the conversation.
    pub fn write(self, conversation: &mut Conversation, snapshot_time: Time) -> Vec<Change> {
        for index in self.repeated {
            let participant = &mut conversation.participants[index];
            participant.state.snapshot_time = snapshot_time;
            state_codec::replace_snapshot_time(participant);
        }
        let mut is_grown = false;
        for (index, participant) in self.changed {
            match index {
                Some(index) => conversation.participants[index] = participant,
                None => {
                    conversation.participants.push(participant);
                    is_grown = true;
                }
            }
        }
        if is_grown {
            let id = |known: &KnownParticipant| known.state.participant_id.clone();
            conversation.participants.sort_by_key(id);
        }
        if let Some((summary, encoded)) = self.summary {
            conversation.summary = summary;
            conversation.encoded_summary = encoded;
        }
        if let Some(NewDetails(details, times, encoded)) = self.details {
            conversation.details = details;
            conversation.detail_times = times;
            conversation.encoded_details = encoded;
        }
        conversation.snapshot_time = self.snapshot_time;
        conversation.source = self.source;
        self.changes
    }
}

/// Count live communications, and all by media and state; list by media when the live ones began.
fn summarize<'a>(participants: impl Iterator<Item = &'a KnownParticipant>) -> Summary {
    let mut summary = Summary::default();
    let mut count = |communication: &CommunicationState| {
        let Some(state) = &communication.state else { return };
        let media = communication.media;
        let counts = &mut summary.communications;
        match counts.iter_mut().find(|((known, name), _)| *known == media && name == state) {
            Some((_, number)) => *number += 1,
            None => counts.push(((media, state.clone()), 1)),
        }
        if communication.live {
            summary.live += 1;
            let since = match summary.live_since.iter().position(|(known, _)| *known == media) {
                Some(index) => &mut summary.live_since[index].1,
                None => {
                    summary.live_since.push((media, Vec::new()));
                    &mut summary.live_since.last_mut().expect("just added").1
                }
            };
            since.push(communication.began);
        }
    };
    for participant in participants {
        participant.state.communications.iter().for_each(|known: &Arc<CommunicationState>| count(known));
    }
    summary.communications.sort_unstable();
    summary.live_since.sort_unstable();
    for (_, since) in &mut summary.live_since {
        since.sort_unstable();
        since.dedup();
    }
    debug_assert!(summary.live_since.iter().all(|(_, since)| !since.contains(&NO_TIME)));
    summary
}
