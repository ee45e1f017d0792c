//! What a lane counts between two commits. As `engine/commit_stats.py`, into which it is drained.

use std::collections::HashMap;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::framing::{FRAMINGS, Framing};
use crate::lifecycle::{BEFORE, DISCONNECTED, LIVE, Text};
use crate::refold::Change;
use crate::state::{DISCONNECT_TYPE, MEDIA, Media, OF_SNAPSHOT, TIME_CLASSES, TimeClass};
use crate::timeline::Entry;
use crate::timestamps::{EARLIEST_MS, LATEST_MS, NO_TIME, Time};
use crate::topics::OTHER;
use crate::transitions::Operations;
use crate::updates::{ANOMALIES, Anomaly};

/// Counts of one lane since they were drained last.
#[derive(Default)]
pub struct Stats {
    applied: u64,
    unchanged: u64,
    /// By reason.
    ignored: HashMap<&'static str, u64>,
    templates: HashMap<&'static str, u64>,
    anomalies: [u64; ANOMALIES.len()],
    framings: [u64; FRAMINGS.len()],
    record_bytes: u64,
    asserted: HashMap<(Media, Option<Text>, Text), u64>,
    retracted: HashMap<Media, u64>,
    time_classes: HashMap<(Media, TimeClass), u64>,
    disconnects: HashMap<(Media, Option<Text>), u64>,
    connect_ms: Vec<(Media, i64)>,
    duration_ms: Vec<(Media, i64)>,
    ages_ms: Vec<i64>,
    behind_ms: Vec<i64>,
    skew_ms: Vec<i64>,
}

/// One record that was applied or unchanged.
pub struct Counted<'a> {
    pub is_applied: bool,
    pub template: &'static str,
    pub bytes: usize,
    pub timestamp_ms: i64,
    pub snapshot_ms: Time,
    /// Stream time before the record.
    pub stream_ms: Option<Time>,
    pub now_ms: i64,
    pub anomalies: &'a [Anomaly],
    /// Of the value and of the key.
    pub framings: &'a [Framing],
}

impl Stats {
    pub fn add(&mut self, record: &Counted) {
        if record.is_applied {
            self.applied += 1;
        } else {
            self.unchanged += 1;
        }
        self.add_value(record.template, record.bytes, record.timestamp_ms, record.now_ms);
        for anomaly in record.anomalies {
            self.anomalies[*anomaly as usize] += 1;
        }
        for framing in record.framings {
            self.framings[*framing as usize] += 1;
        }
        if let Some(stream_ms) = record.stream_ms
            && record.snapshot_ms < stream_ms
        {
            self.behind_ms.push(stream_ms - record.snapshot_ms);
        }
    }

    /// Count a record that was ignored.
    pub fn add_ignored(&mut self, reason: &'static str, bytes: usize, timestamp_ms: i64, now_ms: i64) {
        *self.ignored.entry(reason).or_default() += 1;
        self.add_value(OTHER, bytes, timestamp_ms, now_ms);
    }

    fn add_value(&mut self, template: &'static str, bytes: usize, timestamp_ms: i64, now_ms: i64) {
        *self.templates.entry(template).or_default() += 1;
        self.record_bytes += bytes as u64;
        if (EARLIEST_MS..=LATEST_MS).contains(&timestamp_ms) {
            self.ages_ms.push(now_ms - timestamp_ms);
        }
    }

    /// Count the operations of one communication; returns the newest event time that was asserted, but for snapshots'.
    pub fn add_operations(&mut self, change: &Change, operations: &Operations) -> Time {
        let media = change.media;
        let mut newest = NO_TIME;
        for entry in operations.asserted {
            *self.asserted.entry((media, entry.from_state.clone(), entry.to_state.clone())).or_default() += 1;
            *self.time_classes.entry((media, entry.time_class)).or_default() += 1;
            if entry.time_class != OF_SNAPSHOT {
                newest = newest.max(entry.time);
            }
        }
        if !operations.retracted.is_empty() {
            *self.retracted.entry(media).or_default() += operations.retracted.len() as u64;
        }
        newest
    }

    pub fn add_skew(&mut self, skew_ms: i64) {
        self.skew_ms.push(skew_ms);
    }

    pub fn add_change(&mut self, change: &Change) {
        let is_live = |entry: &Entry| entry.rank == LIVE;
        let is_ended = |entry: &Entry| entry.rank >= DISCONNECTED;
        let first = |entries: &[Entry], is: fn(&Entry) -> bool| entries.iter().find(|entry| is(entry)).map(|e| e.time);
        let connected = first(&change.after, is_live);
        if let Some(connected) = connected
            && first(&change.before, is_live).is_none()
            && change.after[0].rank == BEFORE
        {
            self.connect_ms.push((change.media, connected - change.after[0].time));
        }
        if let Some(ended) = first(&change.after, is_ended)
            && first(&change.before, is_ended).is_none()
        {
            *self
                .disconnects
                .entry((change.media, change.communication.text(DISCONNECT_TYPE).cloned()))
                .or_default() += 1;
            if let Some(connected) = connected {
                self.duration_ms.push((change.media, ended - connected));
            }
        }
    }

    /// The counts by the name of their field, which begin at 0 again.
    pub fn drain<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = std::mem::take(self);
        let drained = PyDict::new(py);
        let records = PyDict::new(py);
        for (disposition, count) in [("applied", stats.applied), ("unchanged", stats.unchanged)] {
            if count > 0 {
                records.set_item((disposition, ""), count)?;
            }
        }
        for (reason, count) in stats.ignored {
            records.set_item(("ignored", reason), count)?;
        }
        drained.set_item("records", records)?;
        drained.set_item("templates", stats.templates)?;
        drained.set_item("anomalies", by_name(py, &ANOMALIES, &stats.anomalies)?)?;
        drained.set_item("framings", by_name(py, &FRAMINGS, &stats.framings)?)?;
        let asserted = PyDict::new(py);
        for ((media, from_state, to_state), count) in &stats.asserted {
            let key = (MEDIA[usize::from(*media)], from_state.as_deref().unwrap_or(""), &**to_state);
            asserted.set_item(key, count)?;
        }
        drained.set_item("asserted", asserted)?;
        let retracted = PyDict::new(py);
        for (media, count) in stats.retracted {
            retracted.set_item(MEDIA[usize::from(media)], count)?;
        }
        drained.set_item("retracted", retracted)?;
        let time_classes = PyDict::new(py);
        for ((media, time_class), count) in stats.time_classes {
            time_classes.set_item((MEDIA[usize::from(media)], TIME_CLASSES[usize::from(time_class)]), count)?;
        }
        drained.set_item("time_classes", time_classes)?;
        let disconnects = PyDict::new(py);
        for ((media, disconnect_type), count) in &stats.disconnects {
            disconnects.set_item((MEDIA[usize::from(*media)], disconnect_type.as_deref().unwrap_or("")), count)?;
        }
        drained.set_item("disconnects", disconnects)?;
        let by_media = |times: Vec<(Media, i64)>| -> Vec<(&str, i64)> {
            times.into_iter().map(|(media, time)| (MEDIA[usize::from(media)], time)).collect()
        };
        drained.set_item("connect_ms", by_media(stats.connect_ms))?;
        drained.set_item("duration_ms", by_media(stats.duration_ms))?;
        drained.set_item("ages_ms", stats.ages_ms)?;
        drained.set_item("behind_ms", stats.behind_ms)?;
        drained.set_item("skew_ms", stats.skew_ms)?;
        drained.set_item("record_bytes", stats.record_bytes)?;
        Ok(drained)
    }
}

/// The counts that are not 0.
fn by_name<'py>(py: Python<'py>, names: &[&str], counts: &[u64]) -> PyResult<Bound<'py, PyDict>> {
    let named = PyDict::new(py);
    for (name, count) in names.iter().zip(counts).filter(|(_, count)| **count > 0) {
        named.set_item(name, count)?;
    }
    Ok(named)
}
