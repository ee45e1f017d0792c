//! The states that are staged or in use, and the loop over the records of a slice. `engine/native.py` is around it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use crate::conversation::{Conversation, Shows, apply};
use crate::decline::Decline;
use crate::envelope::{AnyParticipant, Envelope, Listed, Opened, parse_value};
use crate::fetched::FetchedRecords;
use crate::framing::{Framing, strip_key};
use crate::lifecycle::Text;
use crate::normalize::Normalizer;
use crate::outputs::{Records, Transition};
use crate::state::Source;
use crate::state_codec;
use crate::stats::{Counted, Stats};
use crate::timestamps::{LATEST_MS, NO_TIME, Time};
use crate::transitions;

const STREAM_STEP_MAX_MS: Time = 3_600_000;
const SNAPSHOT_TIME_HEADER: &str = "snapshot-time";
/// Published bytes of the states held decoded, which take about four times as much, but for those staged.
const HELD_BYTES_MAX: usize = 4 << 20;

/// The settings of `core/rules.py` that decide here.
#[derive(FromPyObject)]
struct Rules {
    future_skew_max_s: i64,
    park_cycles_max: usize,
    digest_key: Vec<u8>,
    record_bytes_max: usize,
    communications_max: usize,
    state_bytes_max: usize,
    retention_ended_s: i64,
}

/// A conversation in memory, and how large it was when it was held.
struct Held {
    conversation: Conversation,
    size: usize,
    /// Whether it waits in `held_order` to be dropped.
    is_waiting: bool,
}

enum Staged {
    Tombstone,
    /// The conversation that is held.
    Held,
    /// What the Python core published.
    Published(Vec<u8>),
}

/// The records of a slice.
enum Input<'a, 'py> {
    Listed(&'a Bound<'py, PyList>),
    Fetched(PyRef<'py, FetchedRecords>),
}

/// One record of the input, borrowed.
struct Record<'a> {
    topic: Text,
    partition: i64,
    offset: i64,
    timestamp_ms: i64,
    key: Option<&'a [u8]>,
    value: &'a [u8],
}

/// What a slice of records is processed under.
#[derive(Clone, Copy)]
struct Clock {
    now_ms: i64,
    stream_ms: Option<Time>,
}

/// A record that was processed.
struct Processed {
    next_offset: i64,
    /// None if it was ignored.
    conversation_id: Option<Text>,
}

/// How far a slice of work got.
#[pyclass(frozen, get_all, module = "consumer.engine._native")]
struct Progress {
    /// The index of the first record that was not processed.
    next_index: usize,
    /// Why that record is declined, if it is.
    declined: Option<&'static str>,
    /// The offset after that of the last record that was processed.
    next_offset: Option<i64>,
    stream_ms: Option<Time>,
    /// Whether stream time has entered another minute than the swept one: the caller evicts what has expired.
    enters_minute: bool,
    /// Published bytes of the states that the records came to.
    state_bytes: usize,
    /// The conversations of the processed records, but for those ignored.
    conversation_ids: Py<PyList>,
}

#[pyclass(name = "Core", module = "consumer.engine._native")]
pub struct Engine {
    rules: Rules,
    /// The committed states by conversation id, which belong to the Python side.
    committed: Py<PyDict>,
    held: HashMap<Text, Held>,
    held_order: VecDeque<Text>,
    held_bytes: usize,
    staged: HashMap<Text, Staged>,
    staged_order: Vec<Text>,
    /// What is staged as it was published last, until more is staged.
    published: Option<Py<PyList>>,
    /// Published bytes of the states that the records of this slice came to.
    state_bytes: usize,
    /// Shared with the outputs that were handed out.
    transitions: Arc<Vec<Transition>>,
    stats: Stats,
    topic: Text,
    /// The index of the record at hand.
    position: usize,
}

#[pymethods]
impl Engine {
    #[new]
    fn new(rules: Rules, committed: Py<PyDict>) -> Self {
        Engine {
            rules,
            committed,
            held: HashMap::new(),
            held_order: VecDeque::new(),
            held_bytes: 0,
            staged: HashMap::new(),
            staged_order: Vec::new(),
            published: None,
            state_bytes: 0,
            transitions: Arc::default(),
            stats: Stats::default(),
            topic: Text::from(""),
            position: 0,
        }
    }

    /// Process records from `first` on until `end`, at least one, as long as `slice_s` seconds have not passed, no record
    /// is declined and stream time does not enter another minute than `swept_minute`. They are a list of `Record`s, or
    /// `FetchedRecords`.
    #[expect(clippy::too_many_arguments, reason = "Python gives them one by one")]
    fn process<'py>(
        &mut self,
        py: Python<'py>,
        records: &Bound<'py, PyAny>,
        first: usize,
        end: usize,
        slice_s: f64,
        now_ms: i64,
        stream_ms: Option<Time>,
        swept_minute: i64,
    ) -> PyResult<Progress> {
        let started = Instant::now();
        self.state_bytes = 0;
        let records = match records.cast::<FetchedRecords>() {
            Ok(fetched) => Input::Fetched(fetched.try_borrow()?),
            Err(_) => Input::Listed(records.cast()?),
        };
        let processed = PyList::empty(py);
        let mut clock = Clock { now_ms, stream_ms };
        let mut index = first;
        let (mut declined, mut next_offset, mut enters_minute) = (None, None, false);
        while index < end {
            self.position = index;
            let before_ms = clock.stream_ms;
            match self.process_at(py, &records, index, &mut clock)? {
                Ok(record) => {
                    next_offset = Some(record.next_offset);
                    if let Some(conversation_id) = record.conversation_id {
                        processed.append(&*conversation_id)?;
                    }
                }
                Err(decline) => {
                    declined = Some(decline.name());
                    break;
                }
            }
            index += 1;
            if clock.stream_ms != before_ms
                && clock.stream_ms.is_some_and(|time| time.div_euclid(60_000) != swept_minute)
            {
                enters_minute = true;
                break;
            }
            if started.elapsed().as_secs_f64() >= slice_s {
                break;
            }
        }
        Ok(Progress {
            next_index: index,
            declined,
            next_offset,
            stream_ms: clock.stream_ms,
            enters_minute,
            state_bytes: self.state_bytes,
            conversation_ids: processed.unbind(),
        })
    }

    /// The counts since the last call, by field of `CommitStats`.
    fn drain_stats<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.stats.drain(py)
    }

    /// The index of the record that was processed last, or is at hand.
    #[getter]
    fn position(&self) -> usize {
        self.position
    }

    /// Whether a conversation is staged; then its newest published state, None for a tombstone.
    fn find_staged<'py>(&self, py: Python<'py>, conversation_id: &str) -> (bool, Option<Bound<'py, PyBytes>>) {
        match self.staged.get(conversation_id) {
            None => (false, None),
            Some(staged) => (true, self.publish(conversation_id, staged).map(|state| PyBytes::new(py, &state))),
        }
    }

    /// Stage what the Python core made of a conversation; None for a tombstone.
    fn stage(&mut self, conversation_id: &str, published: Option<Vec<u8>>) {
        let conversation_id = Text::from(conversation_id);
        self.forget(&conversation_id);
        let staged = match published {
            None => Staged::Tombstone,
            Some(state) => Staged::Published(state),
        };
        self.put_staged(conversation_id, staged);
    }

    /// All staged states by conversation, in the order in which the conversations were staged first.
    fn staged<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        if let Some(published) = &self.published {
            return Ok(published.bind(py).clone());
        }
        let states = PyList::empty(py);
        for conversation_id in &self.staged_order {
            let state = self.publish(conversation_id, &self.staged[conversation_id]);
            states.append((&**conversation_id, state.map(|state| PyBytes::new(py, &state))))?;
        }
        self.published = Some(states.clone().unbind());
        Ok(states)
    }

    /// The ids of staged conversations, and whether they are tombstones.
    fn staged_ids(&self) -> Vec<(&str, bool)> {
        let is_tombstone = |id: &Text| matches!(self.staged[id], Staged::Tombstone);
        self.staged_order.iter().map(|id| (&**id, is_tombstone(id))).collect()
    }

    /// Stage the transitions of a record that the Python core processed.
    fn stage_transitions(&mut self, conversation_id: &str, transitions: Vec<Vec<u8>>) {
        let key = Text::from(conversation_id);
        Arc::make_mut(&mut self.transitions).extend(transitions.into_iter().map(|value| (key.clone(), value)));
    }

    /// The states and the transitions that are staged.
    fn outputs(&mut self, py: Python) -> PyResult<(Records, Records)> {
        let states = self.staged(py)?.unbind();
        Ok((Records::of_states(states), Records::of_transitions(self.transitions.clone())))
    }

    /// What is staged is committed: the caller has put it into the committed states.
    fn commit(&mut self) {
        for conversation_id in std::mem::take(&mut self.staged_order) {
            self.await_turn(conversation_id);
        }
        self.clear_staged();
        self.stats = Stats::default();
        self.limit_held();
    }

    /// Drop what is staged.
    fn rollback(&mut self) {
        for conversation_id in std::mem::take(&mut self.staged_order) {
            self.forget(&conversation_id);
        }
        self.clear_staged();
        self.stats = Stats::default();
    }

    /// Forget every decoded state; nothing is staged then.
    fn clear(&mut self) {
        self.rollback();
        self.held.clear();
        self.held_order.clear();
        self.held_bytes = 0;
    }

    /// How many states are held decoded, and their published bytes.
    fn count_held(&self) -> (usize, usize) {
        (self.held.len(), self.held_bytes)
    }
}

impl Engine {
    /// Process one record. Where it is declined, nothing has changed.
    fn process_at(
        &mut self,
        py: Python,
        records: &Input,
        index: usize,
        clock: &mut Clock,
    ) -> PyResult<Result<Processed, Decline>> {
        match records {
            Input::Listed(records) => self.process_listed(&records.get_item(index)?, clock),
            Input::Fetched(records) => self.process_fetched(py, records, index, clock),
        }
    }

    fn process_fetched(
        &mut self,
        py: Python,
        records: &FetchedRecords,
        index: usize,
        clock: &mut Clock,
    ) -> PyResult<Result<Processed, Decline>> {
        let fetched = records.get(py, index);
        let Some(value) = fetched.value else { return Ok(Err(Decline::Envelope)) };
        if fetched.has_snapshot_time {
            return Ok(Err(Decline::Time));
        }
        let (topic, partition) = records.source(py);
        let record = Record {
            topic: self.share_topic(topic.to_str()?),
            partition,
            offset: fetched.offset,
            timestamp_ms: fetched.timestamp_ms,
            key: fetched.key,
            value,
        };
        self.process_one(py, &record, clock)
    }

    fn process_listed(&mut self, record: &Bound<'_, PyAny>, clock: &mut Clock) -> PyResult<Result<Processed, Decline>> {
        let py = record.py();
        let value = record.getattr(intern!(py, "value"))?;
        let Ok(value) = value.cast::<PyBytes>() else { return Ok(Err(Decline::Envelope)) };
        let key = record.getattr(intern!(py, "key"))?;
        let headers = record.getattr(intern!(py, "headers"))?;
        if has_snapshot_time(&headers)? {
            return Ok(Err(Decline::Time));
        }
        let topic = record.getattr(intern!(py, "topic"))?;
        let record = Record {
            topic: self.share_topic(topic.cast::<PyString>()?.to_str()?),
            partition: record.getattr(intern!(py, "partition"))?.extract()?,
            offset: record.getattr(intern!(py, "offset"))?.extract()?,
            timestamp_ms: record.getattr(intern!(py, "timestamp_ms"))?.extract()?,
            key: key.cast::<PyBytes>().ok().map(|key| key.as_bytes()),
            value: value.as_bytes(),
        };
        self.process_one(py, &record, clock)
    }

    fn process_one(&mut self, py: Python, record: &Record, clock: &mut Clock) -> PyResult<Result<Processed, Decline>> {
        let mut spelling = Vec::new();
        let key = record.key.and_then(|key| std::str::from_utf8(strip_key(key, &mut spelling)).ok());
        let held = match key.map(|key| self.hold(py, key)).transpose()?.transpose() {
            Ok(held) => held,
            Err(decline) => return Ok(Err(decline)),
        };
        Ok(self.process_held(record, held, spelling, clock))
    }

    /// Process one record whose key names a conversation that is held, if there is one. `spelling` is how the key does so.
    fn process_held(
        &mut self,
        record: &Record,
        conversation_id: Option<Text>,
        spelling: Vec<Framing>,
        clock: &mut Clock,
    ) -> Result<Processed, Decline> {
        let next_offset = record.offset + 1;
        let known = conversation_id.as_ref().and_then(|id| self.held.get(id)).map(|held| &held.conversation);
        match parse_value(record.value, record.timestamp_ms, self.rules.record_bytes_max, known)? {
            Opened::Ignored(reason) => {
                self.stats.add_ignored(reason, record.value.len(), record.timestamp_ms, clock.now_ms);
                Ok(Processed { next_offset, conversation_id: None })
            }
            Opened::Update(mut envelope) => {
                envelope.framings.extend(spelling);
                let conversation_id = conversation_id.filter(|id| **id == *envelope.conversation_id);
                let conversation_id = self.apply(record, &envelope, conversation_id.ok_or(Decline::Key)?, clock)?;
                Ok(Processed { next_offset, conversation_id: Some(conversation_id) })
            }
        }
    }

    fn share_topic(&mut self, topic: &str) -> Text {
        if *self.topic != *topic {
            self.topic = Text::from(topic);
        }
        self.topic.clone()
    }

    /// Hold a conversation decoded, if there is one.
    fn hold(&mut self, py: Python, conversation_id: &str) -> PyResult<Result<Text, Decline>> {
        let published = match self.staged.get_key_value(conversation_id) {
            Some((_, Staged::Tombstone)) => return Ok(Err(Decline::Late)),
            Some((known, _)) if self.held.contains_key(known) => return Ok(Ok(known.clone())),
            Some((_, Staged::Held)) => unreachable!("what is staged as held is held"),
            Some((_, Staged::Published(state))) => state_codec::decode(state),
            None => {
                if let Some((known, _)) = self.held.get_key_value(conversation_id) {
                    return Ok(Ok(known.clone()));
                }
                match self.committed.bind(py).get_item(conversation_id)? {
                    None => return Ok(Ok(Text::from(conversation_id))),
                    Some(state) => state_codec::decode(state.cast::<PyBytes>()?.as_bytes()),
                }
            }
        };
        let Ok(conversation) = published else { return Ok(Err(Decline::State)) };
        let conversation_id = conversation.conversation_id.clone();
        self.keep(conversation);
        Ok(Ok(conversation_id))
    }

    fn apply(
        &mut self,
        record: &Record,
        envelope: &Envelope,
        conversation_id: Text,
        clock: &mut Clock,
    ) -> Result<Text, Decline> {
        let (time, stream_ms) = (envelope.time_ms, clock.stream_ms);
        let source = Source { topic: record.topic.clone(), partition: record.partition, offset: record.offset };
        let first;
        let (known, is_new) = match self.held.get(&conversation_id) {
            Some(held) => (&held.conversation, false),
            None => {
                let retention_ms = self.rules.retention_ended_s * 1_000;
                if stream_ms.is_some_and(|stream_ms| time < stream_ms - retention_ms) {
                    return Err(Decline::Late);
                }
                first = Conversation::new(conversation_id.clone(), time, source.clone());
                (&first, true)
            }
        };
        let normalizer = self.normalizer(envelope);
        let details = Arc::new(normalizer.read_conversation(&envelope.properties)?);
        let (shows, listed) = self.read_participants(envelope, known, &normalizer)?;
        let applied = apply(known, &details, shows, time, source.clone(), self.rules.park_cycles_max);
        if !applied.is_usable {
            return Err(Decline::Participants);
        }
        let is_applied = applied.is_changed || is_new;
        let (size, communications) = if is_applied { applied.measure(known) } else { (0, 0) };
        if size > self.rules.state_bytes_max || communications > self.rules.communications_max {
            return Err(Decline::Limits);
        }
        // Nothing fails from here on.
        clock.stream_ms = Some(stream_ms.map_or(time, |known| known.max(time.min(known + STREAM_STEP_MAX_MS))));
        self.stats.add(&Counted {
            is_applied,
            template: envelope.topic.template,
            bytes: record.value.len(),
            timestamp_ms: record.timestamp_ms,
            snapshot_ms: time,
            stream_ms,
            now_ms: clock.now_ms,
            anomalies: &applied.anomalies,
            framings: &envelope.framings,
        });
        if !is_applied {
            return Ok(conversation_id);
        }
        self.state_bytes += size;
        if is_new {
            self.keep(Conversation::new(conversation_id.clone(), time, source.clone()));
        }
        let held = self.held.get_mut(&conversation_id).expect("it is held");
        self.held_bytes += size;
        self.held_bytes -= std::mem::replace(&mut held.size, size);
        let changes = applied.write(&mut held.conversation, time);
        held.conversation.listed = listed;
        let newest_snapshot = held.conversation.snapshot_time;
        let mut newest_event = NO_TIME;
        for change in &changes {
            let operations = transitions::derive(change);
            newest_event = newest_event.max(self.stats.add_operations(change, &operations));
            for (operation, entries) in
                [("retract", &operations.retracted), ("assert", &operations.asserted.iter().collect())]
            {
                for entry in entries {
                    let encoded = transitions::encode(operation, &conversation_id, change, entry, &source);
                    Arc::make_mut(&mut self.transitions).push((conversation_id.clone(), encoded));
                }
            }
        }
        if newest_event != NO_TIME && newest_snapshot == time {
            self.stats.add_skew(newest_snapshot - newest_event);
        }
        changes.iter().for_each(|change| self.stats.add_change(change));
        self.put_staged(conversation_id.clone(), Staged::Held);
        self.limit_held();
        Ok(conversation_id)
    }

    fn normalizer(&self, envelope: &Envelope) -> Normalizer<'_> {
        let latest = envelope.time_ms + self.rules.future_skew_max_s * 1_000;
        Normalizer::new(&self.rules.digest_key, latest.min(LATEST_MS), self.rules.communications_max)
    }

    /// What the participants of a record show. With it the indices of the known ones, as far as they were found by what
    /// they repeat: the next snapshot lists them in the same order.
    fn read_participants<'a>(
        &self,
        envelope: &Envelope<'a>,
        known: &Conversation,
        normalizer: &Normalizer,
    ) -> Result<(Vec<Shows<'a>>, Vec<usize>), Decline> {
        let time = envelope.time_ms;
        let mut shows: Vec<Shows> = Vec::with_capacity(envelope.participants.len());
        let mut listed = Vec::with_capacity(envelope.participants.len());
        let (mut communications, mut lists_communications, mut has_state) = (0, false, false);
        for Listed { raw, same_as, read } in &envelope.participants {
            if *raw == "null" {
                // As in Python, a null is neither usable nor an anomaly.
                return Err(Decline::Participants);
            }
            let repeats = |index: usize| known.participants[index].repeats(envelope.topic.medium, time);
            let repeated = same_as.and_then(|index| repeats(index).map(|shown| (index, shown)));
            let shown = match repeated {
                Some((index, shown)) => {
                    if shown.newest > normalizer.latest {
                        return Err(Decline::Time);
                    }
                    listed.push(index);
                    shows.push(Shows::Repeated(index));
                    shown.clone()
                }
                None => {
                    let update = match read {
                        Some(read) if read.medium() == envelope.topic.medium => normalizer.normalize(read)?,
                        _ => normalizer.normalize(&AnyParticipant::read_all(raw, envelope.topic.medium)?)?,
                    };
                    if crate::participant::lists_twice(&update.updates) {
                        return Err(Decline::Participants);
                    }
                    let index = update.participant_id.as_ref().and_then(|id| known.find(id).ok());
                    listed.push(index.unwrap_or(usize::MAX));
                    let shown = update.shown.clone();
                    shows.push(Shows::Update {
                        raw: raw.as_bytes(),
                        medium: envelope.topic.medium,
                        update: Box::new(update),
                    });
                    shown
                }
            };
            communications += shown.listed;
            lists_communications |= shown.lists_communications;
            has_state |= shown.has_state;
        }
        if communications > self.rules.communications_max {
            return Err(Decline::Limits);
        }
        let is_flat = envelope.topic.medium.is_none() && has_state && !lists_communications;
        if is_flat || names_twice(known, &shows) {
            return Err(Decline::Participants);
        }
        Ok((shows, listed))
    }

    /// Hold a conversation that is not held.
    fn keep(&mut self, conversation: Conversation) {
        let conversation_id = conversation.conversation_id.clone();
        let size = conversation.participants.iter().map(|known| known.encoded.len()).sum();
        self.held_bytes += size;
        self.held.insert(conversation_id.clone(), Held { conversation, size, is_waiting: false });
        self.await_turn(conversation_id);
    }

    /// Let a conversation wait until it is dropped, if it is held and does not wait yet.
    fn await_turn(&mut self, conversation_id: Text) {
        if let Some(held) = self.held.get_mut(&conversation_id)
            && !std::mem::replace(&mut held.is_waiting, true)
        {
            self.held_order.push_back(conversation_id);
        }
    }

    /// Drop the conversations that have waited longest. Those staged wait again after the commit.
    fn limit_held(&mut self) {
        while self.held_bytes > HELD_BYTES_MAX {
            let Some(conversation_id) = self.held_order.pop_front() else { return };
            let is_staged = matches!(self.staged.get(&conversation_id), Some(Staged::Held));
            match self.held.get_mut(&conversation_id) {
                Some(held) if is_staged => held.is_waiting = false,
                _ => self.forget(&conversation_id),
            }
        }
        // What was forgotten otherwise left its turn behind.
        if self.held_order.len() > 2 * self.held.len() + 64 {
            self.held_order.retain(|conversation_id| self.held.contains_key(conversation_id));
        }
    }

    fn forget(&mut self, conversation_id: &Text) {
        if let Some(held) = self.held.remove(conversation_id) {
            self.held_bytes -= held.size;
        }
    }

    fn clear_staged(&mut self) {
        self.staged.clear();
        self.staged_order.clear();
        self.published = None;
        self.transitions = Arc::default();
    }

    fn put_staged(&mut self, conversation_id: Text, staged: Staged) {
        self.published = None;
        if self.staged.insert(conversation_id.clone(), staged).is_none() {
            self.staged_order.push(conversation_id);
        }
    }

    fn publish(&self, conversation_id: &str, staged: &Staged) -> Option<Vec<u8>> {
        match staged {
            Staged::Tombstone => None,
            Staged::Published(state) => Some(state.clone()),
            Staged::Held => Some(self.held[conversation_id].conversation.encode()),
        }
    }
}

fn has_snapshot_time(headers: &Bound<'_, PyAny>) -> PyResult<bool> {
    let headers = headers.cast::<PyTuple>()?;
    for header in headers {
        if header.cast::<PyTuple>()?.get_item(0)?.cast::<PyString>()?.to_str()? == SNAPSHOT_TIME_HEADER {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a record shows a participant twice.
fn names_twice(known: &Conversation, shows: &[Shows]) -> bool {
    let mut ids: Vec<&str> = shows
        .iter()
        .filter_map(|shown| match shown {
            Shows::Repeated(index) => Some(&*known.participants[*index].state.participant_id),
            Shows::Update { update, .. } => update.participant_id.as_deref(),
        })
        .collect();
    ids.sort_unstable();
    ids.windows(2).any(|pair| pair[0] == pair[1])
}
