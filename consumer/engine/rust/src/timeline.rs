//! The timeline of one communication and its fold. As `core/timeline.py`, whose invariants hold here.

use crate::lifecycle::{BEFORE, PARKED, Text, before_order};
use crate::state::{OF_SNAPSHOT, Observation, TimeClass, Timeline};
use crate::timestamps::{NO_TIME, Time};

/// One transition of a folded timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub from_state: Option<Text>,
    pub to_state: Text,
    pub rank: u8,
    pub cycle: Time,
    pub time: Time,
    pub time_class: TimeClass,
    pub since: Time,
}

/// Merge the observations of a snapshot into a timeline; None if nothing changed.
pub fn merge(
    timeline: &[Observation],
    observations: &[Observation],
    snapshot_time: Time,
    cycles_max: usize,
) -> Option<Vec<Observation>> {
    let mut changed: Option<Vec<Observation>> = None;
    for observation in observations {
        let time = if observation.time == NO_TIME { snapshot_time } else { observation.time };
        let result = changed.as_deref().unwrap_or(timeline);
        let index = result.iter().position(|known| {
            known.rank == observation.rank && known.cycle == observation.cycle && known.state == observation.state
        });
        if let Some(known) = index.map(|index| &result[index])
            && (known.time_class, known.time) <= (observation.time_class, time)
        {
            continue;
        }
        let dated = Observation { time, ..observation.clone() };
        let result = changed.get_or_insert_with(|| timeline.to_vec());
        match index {
            Some(index) => result[index] = dated,
            None => result.push(dated),
        }
    }
    let mut result = cap(changed?, cycles_max);
    result.sort_by(|left, right| fold_order(left).cmp(&fold_order(right)));
    (result != timeline).then_some(result)
}

/// Merge the timelines of what counts as one communication.
pub fn union(timelines: &[Timeline], cycles_max: usize) -> Timeline {
    let (first, others) = timelines.split_first().expect("at least one timeline");
    let observations: Vec<Observation> = others.iter().flat_map(|timeline| timeline.iter().cloned()).collect();
    merge(first, &observations, NO_TIME, cycles_max).map_or_else(|| first.clone(), Timeline::new)
}

/// Fold a timeline into its transitions, with corrected times.
pub fn fold(timeline: &[Observation]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::with_capacity(timeline.len());
    let mut state: Option<&Text> = None;
    let (mut since, mut latest, mut cycle) = (NO_TIME, NO_TIME, NO_TIME);
    let mut after_gap = false;
    for (observation, time) in timeline.iter().zip(lower_times(timeline)) {
        latest = latest.max(time);
        let is_same = state == Some(&observation.state);
        if &*observation.state == PARKED {
            cycle = observation.cycle;
        } else if observation.cycle != NO_TIME && observation.cycle != cycle {
            after_gap = true; // its park was dropped
            if is_same {
                since = latest;
            }
            continue;
        }
        if !is_same {
            entries.push(Entry {
                from_state: state.cloned(),
                to_state: observation.state.clone(),
                rank: observation.rank,
                cycle: observation.cycle,
                time: latest,
                time_class: observation.time_class,
                since,
            });
            state = Some(&observation.state);
            since = latest;
        } else if after_gap {
            since = latest;
        }
        after_gap = false;
    }
    entries
}

/// The times of a timeline, those of snapshots lowered to the next time of another class.
fn lower_times(timeline: &[Observation]) -> Vec<Time> {
    let mut times = vec![NO_TIME; timeline.len()];
    let mut bound = NO_TIME;
    for (index, observation) in timeline.iter().enumerate().rev() {
        times[index] = observation.time;
        if observation.time_class != OF_SNAPSHOT {
            bound = observation.time;
        } else if bound != NO_TIME && bound < observation.time {
            times[index] = bound;
        }
    }
    times
}

fn fold_order(observation: &Observation) -> (u8, Time, bool, Time, usize, &str) {
    let unparked = observation.cycle != NO_TIME && &*observation.state != PARKED;
    let among_equals = if observation.rank == BEFORE { before_order(&observation.state) } else { 0 };
    (observation.rank, observation.cycle, unparked, observation.time, among_equals, &observation.state)
}

/// Drop park cycles beyond `cycles_max`.
fn cap(timeline: Vec<Observation>, cycles_max: usize) -> Vec<Observation> {
    if timeline.len() <= cycles_max {
        return timeline;
    }
    let mut cycles: Vec<Time> = timeline.iter().map(|known| known.cycle).filter(|cycle| *cycle != NO_TIME).collect();
    cycles.sort_unstable();
    cycles.dedup();
    if cycles.len() <= cycles_max {
        return timeline;
    }
    let latest = &cycles[cycles.len() + 1 - cycles_max..];
    let is_kept = |cycle: Time| cycle == NO_TIME || cycle == cycles[0] || latest.contains(&cycle);
    let is_resume = |known: &Observation| &*known.state != PARKED;
    let dropped_resumes = timeline.iter().filter(|known| !is_kept(known.cycle) && is_resume(known));
    let latest_resumed = dropped_resumes.map(|known| known.cycle).max().unwrap_or(NO_TIME);
    timeline
        .into_iter()
        .filter(|known| is_kept(known.cycle) || (known.cycle == latest_resumed && is_resume(known)))
        .collect()
}
