//! Match communications of the flat shape with a participant's nested ones. As `core/matching.py`.

use std::sync::Arc;

use crate::lifecycle::Text;
use crate::state::{COBROWSE_SESSION_DIGEST, CommunicationState, Standing, Timeline};
use crate::timeline::union;

/// Under which communication id a flat communication counts.
#[derive(Clone, Debug)]
pub struct Match {
    pub session_digest: Option<Text>,
    pub standing: Standing,
    pub effective_id: Option<Text>,
}

/// Timelines to fold, by effective communication id.
pub type Timelines = Vec<(Option<Text>, Timeline)>;

pub fn find_timeline<'a>(timelines: &'a Timelines, effective_id: &Option<Text>) -> Option<&'a Timeline> {
    timelines.iter().find(|(known, _)| known == effective_id).map(|(_, timeline)| timeline)
}

pub fn find_match<'a>(matches: &'a [Match], session_digest: &Option<Text>) -> &'a Match {
    matches.iter().find(|known| known.session_digest == *session_digest).expect("every flat communication is matched")
}

/// Match a participant's flat communications in one medium.
pub fn match_flat(communications: &[&Arc<CommunicationState>]) -> Vec<Match> {
    if communications.iter().all(|communication| !communication.is_flat()) {
        return Vec::new();
    }
    let nested: Vec<&CommunicationState> =
        communications.iter().filter(|known| !known.is_flat()).map(|known| known.as_ref()).collect();
    communications.iter().filter(|known| known.is_flat()).map(|flat| find(flat, &nested)).collect()
}

fn find(flat: &CommunicationState, nested: &[&CommunicationState]) -> Match {
    let candidates: Vec<&CommunicationState> = match &flat.session_digest {
        None => nested.to_vec(),
        Some(digest) => {
            let showed: Vec<_> = nested.iter().copied().filter(|known| shows_session(known, digest)).collect();
            if showed.is_empty() {
                nested.iter().copied().filter(|known| session_of(known).is_none()).collect()
            } else {
                showed
            }
        }
    };
    let (standing, effective_id) = match candidates.as_slice() {
        [] => (Standing::Alone, flat.session_digest.clone()),
        [only] => (Standing::Joined, only.communication_id.clone()),
        _ => (Standing::Ambiguous, None),
    };
    Match { session_digest: flat.session_digest.clone(), standing, effective_id }
}

fn session_of(communication: &CommunicationState) -> Option<&Text> {
    communication.own_details().text(COBROWSE_SESSION_DIGEST)
}

fn shows_session(communication: &CommunicationState, digest: &Text) -> bool {
    session_of(communication)
        .is_some_and(|newest| newest == digest || communication.other_session_digests.contains(digest))
}

/// The timelines to fold of a participant's communications in one medium, given the matches of the flat ones.
pub fn merge_timelines(communications: &[&Arc<CommunicationState>], matches: &[Match], cycles_max: usize) -> Timelines {
    let mut parts: Vec<(Option<Text>, Vec<Timeline>)> = Vec::with_capacity(communications.len());
    for communication in communications {
        let mut effective_id = communication.communication_id.clone();
        if effective_id.is_none() && !matches.is_empty() {
            let found = find_match(matches, &communication.session_digest);
            if found.standing == Standing::Ambiguous {
                continue;
            }
            effective_id = found.effective_id.clone();
        }
        match parts.iter_mut().find(|(known, _)| *known == effective_id) {
            Some((_, timelines)) => timelines.push(communication.timeline.clone()),
            None => parts.push((effective_id, vec![communication.timeline.clone()])),
        }
    }
    parts
        .into_iter()
        .map(|(effective_id, timelines)| match timelines.as_slice() {
            [only] => (effective_id, only.clone()),
            several => (effective_id, union(several, cycles_max)),
        })
        .collect()
}
