//! Merge what one record shows of a participant into what is known of it. As `core/participant.py`, whose invariants
//! hold here.

use std::sync::Arc;

use crate::lifecycle::Text;
use crate::matching::{find_match, match_flat};
use crate::refold::{Change, refold};
use crate::registers::{self, Register};
use crate::state::{
    COBROWSE, COBROWSE_SESSION_DIGEST, COMMUNICATION_DETAILS, CommunicationState, Media, ParticipantState, Standing,
    Version,
};
use crate::timeline;
use crate::timestamps::{NO_TIME, Time};
use crate::updates::{Anomaly, CommunicationUpdate, ParticipantUpdate};

/// A participant after an update that changed it.
pub struct MergeResult {
    pub participant: ParticipantState,
    pub changes: Vec<Change>,
    pub anomalies: Vec<Anomaly>,
    pub is_refolded: bool,
    /// Whether every value of the update is now the current one.
    pub supersedes_all: bool,
}

/// Co-browse sessions that may be new to a communication, and the one that it had before.
struct Sessions {
    index: usize,
    digests: Vec<Option<Text>>,
}

type CommunicationRegister<'a> = Register<'a, { COMMUNICATION_DETAILS.len() }, Version>;

struct Merge<'a> {
    before: &'a ParticipantState,
    time: Time,
    newest: Time,
    cycles_max: usize,
    communications: Vec<Arc<CommunicationState>>,
    /// Media with a communication of the flat shape, as bits.
    flat_media: u16,
    sessions: Vec<Sessions>,
    /// By index: whether the stored version refers to `newest` already.
    is_current: Vec<bool>,
    supersedes_all: bool,
}

/// Merge an update, which lists no communication twice; None if nothing changed.
pub fn merge(
    before: &ParticipantState,
    update: &ParticipantUpdate,
    snapshot_time: Time,
    cycles_max: usize,
) -> Option<MergeResult> {
    let flat = before.communications.iter().filter(|known| known.is_flat());
    let merge = Merge {
        before,
        time: snapshot_time,
        newest: snapshot_time.max(before.snapshot_time),
        cycles_max,
        communications: before.communications.clone(),
        flat_media: flat.fold(0, |media, known| media | bit(known.media)),
        sessions: Vec::new(),
        is_current: vec![false; before.communications.len()],
        supersedes_all: snapshot_time > before.snapshot_time,
    };
    merge.apply(update)
}

fn bit(media: Media) -> u16 {
    1 << media
}

impl Merge<'_> {
    fn apply(mut self, update: &ParticipantUpdate) -> Option<MergeResult> {
        let before = self.before;
        let merged =
            registers::merge(&before.details, before.snapshot_time, &before.detail_times, &update.details, self.time);
        let mut is_changed = merged.is_some();
        let (mut to_refold, mut to_combine): (Vec<Media>, u16) = (Vec::new(), 0);
        for communication in &update.updates {
            let (differs, has_new_timeline) = self.merge_communication(communication);
            is_changed |= differs;
            if differs {
                to_combine |= self.flat_media & bit(communication.media);
            }
            if has_new_timeline && !to_refold.contains(&communication.media) {
                to_refold.push(communication.media);
            }
        }
        if !self.sessions.is_empty() && self.keep_sessions() {
            is_changed = true;
            if !to_refold.contains(&COBROWSE) {
                to_refold.push(COBROWSE);
            }
            to_combine |= self.flat_media & bit(COBROWSE);
        }
        if !is_changed {
            return None;
        }
        let (details, snapshot_time, detail_times) =
            merged.unwrap_or_else(|| (before.details.clone(), before.snapshot_time, before.detail_times.clone()));
        if self.newest > before.snapshot_time {
            self.complete_versions();
        }
        for media in (0..16).filter(|media| to_combine & bit(*media) != 0) {
            self.combine_details(media);
        }
        let (mut changes, mut anomalies) = (Vec::new(), Vec::new());
        for media in &to_refold {
            let refolded = refold(*media, before, &mut self.communications, &details, self.cycles_max);
            changes.extend(refolded.changes);
            anomalies.extend(std::iter::repeat_n(Anomaly::AmbiguousCommunication, refolded.ambiguous));
        }
        let current = self.is_current.iter().filter(|is_current| **is_current).count();
        if self.communications.len() > before.communications.len() {
            self.communications.sort_by(|left, right| sort_key(left).cmp(&sort_key(right)));
        }
        Some(MergeResult {
            participant: ParticipantState {
                participant_id: before.participant_id.clone(),
                snapshot_time,
                details,
                communications: self.communications,
                detail_times,
            },
            changes,
            anomalies,
            is_refolded: !to_refold.is_empty(),
            supersedes_all: self.supersedes_all && current == update.updates.len(),
        })
    }

    /// Merge one communication; whether it changed, and whether its timeline did.
    fn merge_communication(&mut self, update: &CommunicationUpdate) -> (bool, bool) {
        let Some(index) = self.communications.iter().position(|known| is_same(known, update)) else {
            self.add(update);
            return (true, true);
        };
        let known = self.communications[index].clone();
        let timeline = timeline::merge(&known.timeline, &update.observations, self.time, self.cycles_max);
        if self.repeats(&known, update) {
            self.is_current[index] = true;
            let Some(timeline) = timeline else {
                return (self.time > self.before.snapshot_time, false);
            };
            Arc::make_mut(&mut self.communications[index]).timeline = Arc::new(timeline);
            return (true, true);
        }
        let (version, own) = (self.complete_version(index, &known), known.own_details());
        let update_version = Version { snapshot_time: self.time, ..update.version };
        let merged = registers::merge(own, version, &known.detail_versions, &update.details, update_version);
        if let Some(session) = update.details.text(COBROWSE_SESSION_DIGEST) {
            let own_session = own.text(COBROWSE_SESSION_DIGEST);
            if own_session != Some(session) {
                self.sessions.push(Sessions { index, digests: vec![own_session.cloned(), Some(session.clone())] });
            }
        }
        if merged.is_none() && timeline.is_none() {
            return (false, false);
        }
        let (details, newest, older) = merged.unwrap_or_else(|| (own.clone(), version, known.detail_versions.clone()));
        self.supersedes_all &= newest == update_version;
        self.is_current[index] = true;
        let has_new_timeline = timeline.is_some();
        let version = Version { snapshot_time: self.omit_newest(newest.snapshot_time), ..newest };
        let changed = Arc::make_mut(&mut self.communications[index]);
        if let Some(timeline) = timeline {
            changed.timeline = Arc::new(timeline);
        }
        changed.details = details;
        changed.version = version;
        changed.detail_versions = older;
        changed.own_details = None;
        (true, has_new_timeline)
    }

    /// Add a communication that was not known.
    fn add(&mut self, update: &CommunicationUpdate) {
        self.is_current.push(true);
        if update.communication_id.is_none() {
            self.flat_media |= bit(update.media);
        }
        let timeline = timeline::merge(&[], &update.observations, self.time, self.cycles_max);
        self.communications.push(Arc::new(CommunicationState {
            media: update.media,
            details: update.details.clone(),
            version: Version { snapshot_time: self.omit_newest(self.time), ..update.version },
            timeline: Arc::new(timeline.unwrap_or_default()),
            communication_id: update.communication_id.clone(),
            session_digest: update.session_digest.clone(),
            standing: None,
            joined_to: None,
            state: None,
            state_time: NO_TIME,
            time_class: 0,
            began: NO_TIME,
            live: false,
            detail_versions: Vec::new(),
            own_details: None,
            other_session_digests: Vec::new(),
        }));
    }

    /// Whether the participant's newest snapshot shows a communication exactly as it is known.
    fn repeats(&self, known: &CommunicationState, update: &CommunicationUpdate) -> bool {
        self.time == self.newest
            && known.version == update.version
            && *known.own_details() == update.details
            && known.detail_versions.is_empty()
    }

    /// Keep all co-browse sessions that communications showed; whether one is new to its communication.
    fn keep_sessions(&mut self) -> bool {
        let mut is_any_new = false;
        for Sessions { index, digests } in &self.sessions {
            let known = &self.communications[*index];
            let current = known.own_details().text(COBROWSE_SESSION_DIGEST);
            let shown = digests.iter().flatten().chain(&known.other_session_digests);
            let mut others: Vec<Text> = shown.filter(|digest| Some(*digest) != current).cloned().collect();
            others.sort_unstable();
            others.dedup();
            if others != known.other_session_digests {
                Arc::make_mut(&mut self.communications[*index]).other_session_digests = others;
                is_any_new = true;
            }
            is_any_new |= digests.contains(&None);
        }
        is_any_new
    }

    /// A version's snapshot time as it is stored: none where it is the participant's.
    fn omit_newest(&self, snapshot_time: Time) -> Time {
        if snapshot_time == self.newest { NO_TIME } else { snapshot_time }
    }

    /// The version of a communication with its snapshot time.
    fn complete_version(&self, index: usize, known: &CommunicationState) -> Version {
        if known.version.snapshot_time != NO_TIME {
            return known.version;
        }
        let snapshot_time = if self.is_current[index] { self.newest } else { self.before.snapshot_time };
        Version { snapshot_time, ..known.version }
    }

    /// Write the participant's previous snapshot time into communications that this snapshot does not show.
    fn complete_versions(&mut self) {
        for index in 0..self.communications.len() {
            if !self.is_current[index] && self.communications[index].version.snapshot_time == NO_TIME {
                let version = self.complete_version(index, &self.communications[index]);
                Arc::make_mut(&mut self.communications[index]).version = version;
            }
        }
    }

    /// Update the details that count in one medium: a communication's own, and those of what joined it.
    fn combine_details(&mut self, media: Media) {
        let indices: Vec<usize> =
            (0..self.communications.len()).filter(|index| self.communications[*index].media == media).collect();
        let stored: Vec<Arc<CommunicationState>> =
            indices.iter().map(|index| self.communications[*index].clone()).collect();
        let matches = match_flat(&stored.iter().collect::<Vec<_>>());
        let has_joined = |flat: &CommunicationState, nested: &CommunicationState| {
            let found = find_match(&matches, &flat.session_digest);
            found.standing == Standing::Joined && found.effective_id == nested.communication_id
        };
        for (index, known) in indices.into_iter().zip(&stored) {
            let own = known.own_details();
            let mut parts: Vec<CommunicationRegister> = vec![self.to_register(known)];
            if !known.is_flat() {
                let flat = stored.iter().filter(|flat| flat.is_flat());
                parts.extend(flat.filter(|flat| has_joined(flat, known)).map(|flat| self.to_register(flat)));
            }
            let details = if parts.len() > 1 { registers::combine(&parts) } else { own.clone() };
            if details != known.details || (details == *own) != known.own_details.is_none() {
                let own_details = (details != *own).then(|| own.clone());
                let changed = Arc::make_mut(&mut self.communications[index]);
                changed.details = details;
                changed.own_details = own_details;
            }
        }
    }

    /// A communication's own details with its whole version, after `complete_versions`.
    fn to_register<'b>(&self, known: &'b CommunicationState) -> CommunicationRegister<'b> {
        let mut version = known.version;
        if version.snapshot_time == NO_TIME {
            version.snapshot_time = self.newest;
        }
        (known.own_details(), version, &known.detail_versions)
    }
}

fn is_same(known: &CommunicationState, update: &CommunicationUpdate) -> bool {
    known.media == update.media
        && known.communication_id == update.communication_id
        && known.session_digest == update.session_digest
}

/// Whether an update lists a communication twice.
pub fn lists_twice(updates: &[CommunicationUpdate]) -> bool {
    updates.iter().enumerate().any(|(index, update)| {
        let earlier = &updates[..index];
        earlier.iter().any(|known| {
            known.media == update.media
                && known.communication_id == update.communication_id
                && known.session_digest == update.session_digest
        })
    })
}

fn sort_key(communication: &CommunicationState) -> (Media, &str, &str) {
    (
        communication.media,
        communication.communication_id.as_deref().unwrap_or(""),
        communication.session_digest.as_deref().unwrap_or(""),
    )
}
