//! Take off the frames that relays commonly put around a value or a key. As `core/framing.py`; every other frame is left
//! on, so that the record is declined.

use crate::parser::{Parser, find_mark};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// A zero and the id of a schema.
const CONFLUENT_BYTES: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    ByteOrderMark,
    Confluent,
    Connect,
    KeyConfluent,
    KeyText,
}

/// The names by `Framing`.
pub const FRAMINGS: [&str; 5] = ["byte_order_mark", "confluent", "connect", "key_confluent", "key_text"];

/// Take Confluent's prefix off a value, and a byte order mark behind it.
pub fn strip<'a>(mut value: &'a [u8], framings: &mut Vec<Framing>) -> &'a [u8] {
    if let Some(content) = strip_prefix(value) {
        framings.push(Framing::Confluent);
        value = content;
    }
    if let Some(content) = value.strip_prefix(BYTE_ORDER_MARK) {
        framings.push(Framing::ByteOrderMark);
        value = content;
    }
    value
}

/// Move into the payload of `{"schema": ..., "payload": {`, as Kafka Connect's JsonConverter orders them; returns whether
/// it is that. Else the parser stays where it is.
pub fn enter_connect(parser: &mut Parser) -> bool {
    let mut ahead = *parser;
    let is_connect = ahead.take(b'{')
        && ahead.take_name("schema")
        && ahead.skip_value().is_ok()
        && ahead.take(b',')
        && ahead.take_name("payload")
        && ahead.peek() == Some(b'{');
    if is_connect {
        *parser = ahead;
    }
    is_connect
}

/// The id that a key spells, behind Confluent's prefix or in quotes. A key with escapes stays as it is.
pub fn strip_key<'a>(mut key: &'a [u8], framings: &mut Vec<Framing>) -> &'a [u8] {
    if let Some(content) = strip_prefix(key) {
        framings.push(Framing::KeyConfluent);
        key = content;
    }
    if let [b'"', content @ .., b'"'] = key
        && find_mark(content, 0).is_none()
    {
        framings.push(Framing::KeyText);
        key = content;
    }
    key
}

fn strip_prefix(value: &[u8]) -> Option<&[u8]> {
    if value.first() == Some(&0) && value.len() > CONFLUENT_BYTES { Some(&value[CONFLUENT_BYTES..]) } else { None }
}
