//! Fold the communications of a participant in one medium again. As `core/refold.py`.

use std::sync::Arc;

use crate::lifecycle::{LIVE, Text};
use crate::matching::{Match, Timelines, find_match, find_timeline, match_flat, merge_timelines};
use crate::state::{
    CommunicationDetails, CommunicationState, Media, Observation, ParticipantDetails, ParticipantState, Standing,
};
use crate::timeline::{Entry, fold};
use crate::timestamps::NO_TIME;

/// The folded timeline of one communication before and after a snapshot; they differ.
#[derive(Debug)]
pub struct Change {
    pub participant_id: Text,
    pub media: Media,
    pub communication_id: Option<Text>,
    pub before: Vec<Entry>,
    pub after: Vec<Entry>,
    pub participant: Arc<ParticipantDetails>,
    pub communication: Arc<CommunicationDetails>,
}

/// What a fold changed, and how many communications are ambiguous.
pub struct Refolded {
    pub changes: Vec<Change>,
    pub ambiguous: usize,
}

type Folds = Vec<(Option<Text>, Vec<Entry>)>;
type Counted = Vec<(Option<Text>, Arc<CommunicationDetails>)>;

/// Compare the folds of `communications` with those of the participant before the snapshot, in one medium. The fields
/// that derive from timelines are updated.
pub fn refold(
    media: Media,
    before: &ParticipantState,
    communications: &mut [Arc<CommunicationState>],
    details: &Arc<ParticipantDetails>,
    cycles_max: usize,
) -> Refolded {
    let known: Vec<_> = before.communications.iter().filter(|known| known.media == media).collect();
    let updated: Vec<_> = communications.iter().filter(|known| known.media == media).collect();
    let matches = match_flat(&updated);
    let old = merge_timelines(&known, &if matches.is_empty() { Vec::new() } else { match_flat(&known) }, cycles_max);
    let new = merge_timelines(&updated, &matches, cycles_max);
    let mut folds = fold_changed(&old, &new, !matches.is_empty());
    let mut counted = if matches.is_empty() { Vec::new() } else { list_details(&known) };
    for communication in communications.iter_mut().filter(|known| known.media == media) {
        let mut effective_id = communication.communication_id.clone();
        if effective_id.is_none() {
            let found = find_match(&matches, &communication.session_digest);
            store_match(Arc::make_mut(communication), found);
            if found.standing != Standing::Alone {
                continue;
            }
            effective_id = found.effective_id.clone();
        }
        if let Some((_, entries)) = folds.iter().find(|(known, _)| *known == effective_id)
            && !entries.is_empty()
        {
            let timeline = find_timeline(&new, &effective_id).expect("it was folded");
            store_fold(Arc::make_mut(communication), entries, timeline);
            put_details(&mut counted, effective_id, &communication.details);
        }
    }
    folds.sort_by(|(left, _), (right, _)| left.as_deref().unwrap_or("").cmp(right.as_deref().unwrap_or("")));
    let mut changes = Vec::new();
    for (effective_id, after) in folds {
        let entries = find_timeline(&old, &effective_id).map_or_else(Vec::new, |timeline| fold(timeline));
        if entries == after {
            continue;
        }
        let details_of = counted.iter().find(|(known, _)| *known == effective_id);
        changes.push(Change {
            participant_id: before.participant_id.clone(),
            media,
            communication: details_of.map(|(_, details)| details.clone()).unwrap_or_default(),
            communication_id: effective_id,
            before: entries,
            after,
            participant: details.clone(),
        });
    }
    let ambiguous = matches.iter().filter(|found| found.standing == Standing::Ambiguous).count();
    Refolded { changes, ambiguous }
}

/// The folds of the timelines that differ from before.
fn fold_changed(old: &Timelines, new: &Timelines, has_flat: bool) -> Folds {
    let mut folds = Folds::new();
    for (effective_id, timeline) in new {
        if find_timeline(old, effective_id) != Some(timeline) {
            folds.push((effective_id.clone(), fold(timeline)));
        }
    }
    if has_flat {
        for (effective_id, _) in old {
            if find_timeline(new, effective_id).is_none() {
                folds.push((effective_id.clone(), Vec::new()));
            }
        }
    }
    folds
}

/// Unless a flat communication stands alone, it has no state of its own.
fn store_match(communication: &mut CommunicationState, found: &Match) {
    communication.standing = Some(found.standing);
    if found.standing == Standing::Alone {
        communication.joined_to = None;
        return;
    }
    communication.joined_to = found.effective_id.clone();
    communication.state = None;
    communication.state_time = NO_TIME;
    communication.began = NO_TIME;
    communication.live = false;
}

fn store_fold(communication: &mut CommunicationState, entries: &[Entry], timeline: &[Observation]) {
    let last = &entries[entries.len() - 1];
    communication.state = Some(last.to_state.clone());
    communication.state_time = last.time;
    communication.time_class = last.time_class;
    communication.began = entries[0].time;
    communication.live = timeline[timeline.len() - 1].rank <= LIVE;
}

/// The details of communications that did not join another, by the id under which they count.
fn list_details(communications: &[&Arc<CommunicationState>]) -> Counted {
    let mut counted = Counted::new();
    for known in communications {
        if matches!(known.standing, None | Some(Standing::Alone)) {
            let effective_id = known.communication_id.clone().or_else(|| known.session_digest.clone());
            put_details(&mut counted, effective_id, &known.details);
        }
    }
    counted
}

fn put_details(counted: &mut Counted, effective_id: Option<Text>, details: &Arc<CommunicationDetails>) {
    match counted.iter_mut().find(|(known, _)| *known == effective_id) {
        Some((_, known)) => known.clone_from(details),
        None => counted.push((effective_id, details.clone())),
    }
}
