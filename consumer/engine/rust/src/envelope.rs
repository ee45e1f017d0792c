//! Read the envelope of a value: its topic, its body and the time of its snapshot. As `core/envelope.py`,
//! `core/extent.py` and the checks of a whole record in `core/reading.py` and `core/snapshot.py`.

use memchr::memchr_iter;

use crate::conversation::Conversation;
use crate::decline::Decline;
use crate::framing::{Framing, enter_connect, strip};
use crate::parser::{Member, Parser, Raw, Read};
use crate::state::Media;
use crate::timestamps::{DAY_MS, EARLIEST_MS, LATEST_MS, Time, parse, plausible};
use crate::topics::{NO_TOPIC, Topic, classify};
use crate::wire::{ConversationProperties, FlatParticipant, Name, Participant, Passing, WireTime, get};

const NESTING_MAX: usize = 256;
const ELEMENTS_MAX: usize = 65_536;
const PARTICIPANTS_MAX: usize = 2_000;
/// From this size on, Python processes a value in stages: here it would take too long at once.
const LONG_BYTES: usize = 512 << 10;

/// What a value holds.
pub enum Opened<'a> {
    Update(Envelope<'a>),
    /// It is of a topic that carries no conversation update; the reason.
    Ignored(&'static str),
}

/// What the envelope of a conversation update holds.
pub struct Envelope<'a> {
    pub topic: Topic,
    pub conversation_id: Name<'a>,
    pub participants: Vec<Listed<'a>>,
    pub properties: ConversationProperties<'a>,
    pub time_ms: Time,
    /// What was around the value.
    pub framings: Vec<Framing>,
}

/// A participant as a record lists it.
pub struct Listed<'a> {
    pub raw: &'a str,
    /// The known participant whose newest update has these bytes.
    pub same_as: Option<usize>,
    /// What was read already, as the topic stands before the participants.
    pub read: Option<AnyParticipant<'a>>,
}

/// A participant of either shape.
pub enum AnyParticipant<'a> {
    Nested(Box<Participant<'a>>),
    Flat(Box<FlatParticipant<'a>>, Media),
}

#[derive(Default)]
struct Payload<'a> {
    /// That of a body without an envelope, or of EventBridge's event.
    body: Body<'a>,
    topic_name: Option<Passing<'a>>,
    event_body: Option<Body<'a>>,
    detail_type: Option<Passing<'a>>,
    detail: Option<Detail<'a>>,
}

#[derive(Default)]
struct Body<'a> {
    id: Option<Name<'a>>,
    participants: Option<Vec<Listed<'a>>>,
    properties: ConversationProperties<'a>,
}

#[derive(Default)]
struct Detail<'a> {
    topic_name: Option<Passing<'a>>,
    event_body: Option<Body<'a>>,
    timestamp: WireTime<'a>,
}

/// Parse the value of a record whose Kafka timestamp is given. `known` is the conversation that the record's key names:
/// participants that repeat its newest updates are recognized by their bytes and not parsed.
pub fn parse_value<'a>(
    value: &'a [u8],
    timestamp_ms: i64,
    record_bytes_max: usize,
    known: Option<&Conversation>,
) -> Result<Opened<'a>, Decline> {
    if value.len() > record_bytes_max || value.len() >= LONG_BYTES {
        return Err(Decline::Limits);
    }
    let mut framings = Vec::new();
    let value = strip(value, &mut framings);
    if is_large(value) {
        return Err(Decline::Limits);
    }
    let text = std::str::from_utf8(value).map_err(|_| Decline::Json)?;
    if has_lone_surrogate(value) {
        return Err(Decline::Json);
    }
    let mut parser = Parser::new(text);
    let is_connect = enter_connect(&mut parser);
    let payload = EnvelopeReader { known }.read_payload(&mut parser)?;
    if is_connect {
        parser.expect(b'}')?;
        framings.push(Framing::Connect);
    }
    parser.finish()?;
    let (topic, body, event_time) = match payload.detail {
        Some(detail) => {
            let name = get(&detail.topic_name).or(get(&payload.detail_type));
            (classify(name.unwrap_or("")), detail.event_body, detail.timestamp)
        }
        None if get(&payload.detail_type).is_some() => return Err(Decline::Envelope),
        None if get(&payload.topic_name).is_some() || payload.event_body.is_some() => {
            (classify(get(&payload.topic_name).unwrap_or("")), payload.event_body, WireTime::Absent)
        }
        None if payload.body.participants.is_none() => return Err(Decline::Envelope), // a relay's frame, maybe
        None => (Some(NO_TOPIC), Some(payload.body), WireTime::Absent),
    };
    let topic = topic.ok_or(Decline::Topic)?;
    if let Some(reason) = topic.ignored {
        return Ok(Opened::Ignored(reason));
    }
    let body = body.ok_or(Decline::Envelope)?;
    let conversation_id = body.id.filter(|id| !id.is_empty()).ok_or(Decline::Envelope)?;
    let participants = body.participants.unwrap_or_default();
    if participants.len() > PARTICIPANTS_MAX {
        return Err(Decline::Limits);
    }
    let time_ms = find_snapshot_time(event_time, timestamp_ms)?;
    let properties = body.properties;
    Ok(Opened::Update(Envelope { topic, conversation_id, participants, properties, time_ms, framings }))
}

/// Reads the members of envelopes.
struct EnvelopeReader<'k> {
    known: Option<&'k Conversation>,
}

impl EnvelopeReader<'_> {
    fn read_payload<'a>(&self, parser: &mut Parser<'a>) -> Result<Payload<'a>, Decline> {
        let mut payload = Payload::default();
        parser.read_members(|parser, name| match name {
            "id" => payload.body.id.read_member(parser),
            "participants" => self.read_participants(parser, &mut payload.body, Some(NO_TOPIC)),
            "topicName" => payload.topic_name.read_member(parser),
            "eventBody" => self.read_body(parser, &mut payload.event_body, &payload.topic_name),
            "detail-type" => payload.detail_type.read_member(parser),
            "detail" => self.read_detail(parser, &mut payload.detail, &payload.detail_type),
            _ => payload.body.properties.read_member(parser, name),
        })?;
        Ok(payload)
    }

    fn read_detail<'a>(
        &self,
        parser: &mut Parser<'a>,
        detail: &mut Option<Detail<'a>>,
        detail_type: &Option<Passing>,
    ) -> Result<(), Decline> {
        read_once(parser, detail, |parser, detail: &mut Detail<'a>, name| match name {
            "topicName" => detail.topic_name.read_member(parser),
            "eventBody" => {
                let name = if get(&detail.topic_name).is_some() { &detail.topic_name } else { detail_type };
                self.read_body(parser, &mut detail.event_body, name)
            }
            "timestamp" => detail.timestamp.read_member(parser),
            _ => parser.skip_value(),
        })
    }

    /// Read the body of a topic as far as that is known yet.
    fn read_body<'a>(
        &self,
        parser: &mut Parser<'a>,
        body: &mut Option<Body<'a>>,
        topic_name: &Option<Passing>,
    ) -> Result<(), Decline> {
        let topic = get(topic_name).and_then(classify);
        read_once(parser, body, |parser, body: &mut Body<'a>, name| match name {
            "id" => body.id.read_member(parser),
            "participants" => self.read_participants(parser, body, topic),
            _ => body.properties.read_member(parser, name),
        })
    }

    fn read_participants<'a>(
        &self,
        parser: &mut Parser<'a>,
        body: &mut Body<'a>,
        topic: Option<Topic>,
    ) -> Result<(), Decline> {
        if body.participants.is_some() {
            return Err(Decline::Json);
        }
        if parser.peek() == Some(b'n') {
            return parser.skip_value();
        }
        let mut participants = Vec::with_capacity(8);
        parser.read_elements(|parser| {
            let listed = self.read_listed(parser, participants.len(), topic)?;
            participants.push(listed);
            Ok(())
        })?;
        body.participants = Some(participants);
        Ok(())
    }

    fn read_listed<'a>(
        &self,
        parser: &mut Parser<'a>,
        position: usize,
        topic: Option<Topic>,
    ) -> Result<Listed<'a>, Decline> {
        let first = parser.peek();
        let same_as = self.known.and_then(|known| known.find_same(parser.rest(), position));
        let mut read = None;
        let Raw(raw) = parser.read_raw(|parser| match (same_as, topic) {
            (Some((_, length)), _) => {
                parser.advance(length);
                Ok(())
            }
            (None, Some(topic)) if first == Some(b'{') => {
                read = Some(AnyParticipant::read(parser, topic.medium)?);
                Ok(())
            }
            _ => parser.skip_value(),
        })?;
        Ok(Listed { raw, same_as: same_as.map(|(index, _)| index), read })
    }
}

impl<'a> AnyParticipant<'a> {
    /// Read a participant of the flat shape with its medium, of the nested one without.
    fn read(parser: &mut Parser<'a>, medium: Option<Media>) -> Result<Self, Decline> {
        match medium {
            None => Participant::read(parser).map(|nested| AnyParticipant::Nested(Box::new(nested))),
            Some(medium) => FlatParticipant::read(parser).map(|flat| AnyParticipant::Flat(Box::new(flat), medium)),
        }
    }

    pub fn read_all(raw: &'a str, medium: Option<Media>) -> Result<Self, Decline> {
        AnyParticipant::read(&mut Parser::new(raw), medium)
    }

    pub fn medium(&self) -> Option<Media> {
        match self {
            AnyParticipant::Nested(_) => None,
            AnyParticipant::Flat(_, medium) => Some(*medium),
        }
    }
}

/// Read the members of an object, which may be null and does not stand twice.
fn read_once<'a, T: Default>(
    parser: &mut Parser<'a>,
    object: &mut Option<T>,
    mut read: impl FnMut(&mut Parser<'a>, &mut T, &str) -> Result<(), Decline>,
) -> Result<(), Decline> {
    if object.is_some() {
        return Err(Decline::Json);
    }
    if parser.peek() == Some(b'n') {
        return parser.skip_value();
    }
    let object = object.insert(T::default());
    parser.read_members(|parser, name| read(parser, object, name))
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
    let openings = memchr_iter(b'[', value).count() + memchr_iter(b'{', value).count();
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
