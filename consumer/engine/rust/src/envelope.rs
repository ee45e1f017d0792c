//! Read the envelope of a value: its topic, its body and the time of its snapshot. As `core/envelope.py`,
//! `core/extent.py` and the checks of a whole record in `core/snapshot.py`.

use memchr::{memchr_iter, memchr2_iter};
use serde_json::value::RawValue;

use crate::decline::Decline;
use crate::timestamps::{DAY_MS, EARLIEST_MS, LATEST_MS, Time, parse, plausible};
use crate::topics::{NO_TOPIC, Topic, classify};
use crate::wire::{Body, Name, Object, Payload, WireTime, get};

const NESTING_MAX: usize = 256;
const ELEMENTS_MAX: usize = 65_536;
const PARTICIPANTS_MAX: usize = 2_000;
/// From this size on, Python processes a value in stages: here it would take too long at once.
const LONG_BYTES: usize = 512 << 10;

/// What the envelope of a value holds.
pub struct Envelope<'a> {
    pub topic: Topic,
    pub conversation_id: Name<'a>,
    pub participants: Vec<&'a RawValue>,
    pub time_ms: Time,
}

/// Parse the value of a record whose Kafka timestamp is given.
pub fn parse_value(value: &[u8], timestamp_ms: i64, record_bytes_max: usize) -> Result<Envelope<'_>, Decline> {
    if value.len() > record_bytes_max || value.len() >= LONG_BYTES || is_large(value) {
        return Err(Decline::Limits);
    }
    let text = std::str::from_utf8(value).map_err(|_| Decline::Json)?;
    if has_lone_surrogate(value) {
        return Err(Decline::Json);
    }
    let Object(payload): Object<Payload> = serde_json::from_str(text)?;
    let (topic, body, event_time) = match payload.detail {
        Some(detail) => {
            let name = get(&detail.topic_name).or(get(&payload.detail_type));
            (classify(name.unwrap_or("")), detail.0.event_body, detail.0.timestamp)
        }
        None if get(&payload.detail_type).is_some() => return Err(Decline::Envelope),
        None if get(&payload.topic_name).is_some() || payload.event_body.is_some() => {
            (classify(get(&payload.topic_name).unwrap_or("")), payload.event_body, WireTime::Absent)
        }
        None if payload.participants.is_none() => return Err(Decline::Envelope), // a relay's frame, maybe
        None => {
            let body = Body { id: payload.id, participants: payload.participants };
            (Some(NO_TOPIC), Some(Object(body)), WireTime::Absent)
        }
    };
    let topic = topic.ok_or(Decline::Topic)?;
    let Object(body) = body.ok_or(Decline::Envelope)?;
    let conversation_id = body.id.filter(|id| !id.is_empty()).ok_or(Decline::Envelope)?;
    let participants = body.participants.unwrap_or_default();
    if participants.len() > PARTICIPANTS_MAX {
        return Err(Decline::Limits);
    }
    Ok(Envelope { topic, conversation_id, participants, time_ms: find_snapshot_time(event_time, timestamp_ms)? })
}

/// The time of EventBridge's event, else the record's. Declined where one of them is not plain.
fn find_snapshot_time(event_time: WireTime, timestamp_ms: i64) -> Result<Time, Decline> {
    let mut latest_ms = LATEST_MS;
    if timestamp_ms >= EARLIEST_MS {
        latest_ms = latest_ms.min(timestamp_ms.saturating_add(DAY_MS));
    }
    let event_ms = match event_time {
        WireTime::Absent | WireTime::Text("") => None,
        WireTime::Text(text) => Some(parse(text).ok_or(Decline::Time)?),
        WireTime::Milliseconds(number) => Some(number),
    };
    event_ms.and_then(|time| plausible(time, latest_ms)).or(plausible(timestamp_ms, latest_ms)).ok_or(Decline::Time)
}

/// Whether a value may be nested too deep or have too many elements.
fn is_large(value: &[u8]) -> bool {
    let openings = memchr2_iter(b'[', b'{', value).count();
    let is_deep = openings > NESTING_MAX && depth(value) > NESTING_MAX;
    is_deep || (value.len() > ELEMENTS_MAX && openings + memchr_iter(b',', value).count() > ELEMENTS_MAX)
}

/// How deep brackets nest outside of strings.
fn depth(value: &[u8]) -> usize {
    let (mut depth, mut deepest, mut index) = (0_usize, 0, 0);
    while index < value.len() {
        match value[index] {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => index = skip_text(value, index + 1),
            _ => {}
        }
        index += 1;
    }
    deepest
}

/// The index of the quote that ends a string.
fn skip_text(value: &[u8], mut index: usize) -> usize {
    while let Some(found) = memchr::memchr2(b'"', b'\\', &value[index.min(value.len())..]) {
        index += found;
        if value[index] == b'"' {
            return index;
        }
        index += 2;
    }
    value.len()
}

/// Whether an escape of half a character stands without its other half. Python reads it as U+FFFD.
fn has_lone_surrogate(value: &[u8]) -> bool {
    let mut index = 0;
    while let Some(found) = memchr::memchr(b'\\', &value[index..]) {
        let begin = index + found;
        index = begin + 2;
        match surrogate(value, begin) {
            None => {}
            Some(0xd800..0xdc00) if matches!(surrogate(value, begin + 6), Some(0xdc00..)) => index = begin + 12,
            Some(_) => return true,
        }
        if index >= value.len() {
            return false;
        }
    }
    false
}

/// The surrogate that is escaped at an index.
fn surrogate(value: &[u8], begin: usize) -> Option<u32> {
    let escape = value.get(begin..begin + 6)?;
    if &escape[..2] != b"\\u" || !matches!(escape[2], b'd' | b'D') {
        return None;
    }
    let code = u32::from_str_radix(std::str::from_utf8(&escape[2..]).ok()?, 16).ok()?;
    (0xd800..0xe000).contains(&code).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_surrogates_are_found() {
        for (value, is_lone) in [
            (r#""\ud83d\ude00""#, false),
            (r#""\ud83d""#, true),
            (r#""\ude00""#, true),
            (r#""\\ud83d""#, false),
            (r#""\ud83d\n""#, true),
            (r#""\ud7ff""#, false),
            (r#""\uD83D\uDE00\uD83D""#, true),
        ] {
            assert_eq!(has_lone_surrogate(value.as_bytes()), is_lone, "{value}");
        }
    }

    #[test]
    fn brackets_in_texts_do_not_count() {
        assert_eq!(depth(br#"{"a":["[[[\"[["],"b":[[]]}"#), 3);
    }
}
