//! Derive what to publish from a changed fold. As `core/transitions.py`.

use blake2b_simd::Params;

use crate::json::{put_integer, put_name, put_plain, put_separated, put_text, put_time};
use crate::lifecycle::Text;
use crate::refold::Change;
use crate::state::{
    COMMUNICATION_DETAILS, DISCONNECT_REASONS, DISCONNECT_TYPE, ERROR_CODE, MEDIA, PARTICIPANT_DETAILS, PURPOSE,
    QUEUE_ID, Source, TIME_CLASSES, USER_ID,
};
use crate::state_codec::put_source;
use crate::timeline::Entry;
use crate::timestamps::{NO_TIME, to_text};

const SEPARATOR: u8 = 0x1f;

/// The operations for one communication: the entries to retract, newest first, then those to assert.
pub struct Operations<'a> {
    pub retracted: Vec<&'a Entry>,
    pub asserted: &'a [Entry],
}

pub fn derive(change: &Change) -> Operations<'_> {
    let (first, retracted_end, asserted_first) = diff(&change.before, &change.after);
    Operations {
        retracted: change.before[first..retracted_end].iter().rev().collect(),
        asserted: &change.after[asserted_first..],
    }
}

/// Three indices: `before[first..retracted_end]` is to be retracted, `after[asserted_first..]` to be asserted.
fn diff(before: &[Entry], after: &[Entry]) -> (usize, usize, usize) {
    let first = before.iter().zip(after).take_while(|(old, new)| old == new).count();
    if first < before.len()
        && first < after.len()
        && let Some(follows) = before.iter().position(|old| *old == after[first])
    {
        let standing = before.len() - follows;
        if after.get(first..first + standing) == Some(&before[follows..]) {
            return (first, follows, first + standing);
        }
    }
    (first, before.len(), first)
}

/// The published bytes of an operation.
pub fn encode(operation: &str, conversation_id: &str, change: &Change, entry: &Entry, source: &Source) -> Vec<u8> {
    let mut out = Vec::with_capacity(640);
    out.extend_from_slice(b"{\"schema\":1,\"id\":\"");
    out.extend_from_slice(digest_id(conversation_id, change, entry).as_bytes());
    out.extend_from_slice(b"\",\"op\":\"");
    out.extend_from_slice(operation.as_bytes());
    out.extend_from_slice(b"\",\"conversationId\":");
    put_text(&mut out, conversation_id);
    out.extend_from_slice(b",\"participantId\":");
    put_text(&mut out, &change.participant_id);
    out.extend_from_slice(b",\"communicationId\":");
    put_nullable(&mut out, &change.communication_id);
    out.extend_from_slice(b",\"media\":");
    put_plain(&mut out, MEDIA[usize::from(change.media)]);
    out.extend_from_slice(b",\"from\":");
    put_nullable(&mut out, &entry.from_state);
    out.extend_from_slice(b",\"to\":");
    put_text(&mut out, &entry.to_state);
    out.extend_from_slice(b",\"eventTime\":");
    put_time(&mut out, entry.time);
    out.extend_from_slice(b",\"timeClass\":");
    put_plain(&mut out, TIME_CLASSES[usize::from(entry.time_class)]);
    out.extend_from_slice(b",\"millisecondsInFrom\":");
    if entry.since == NO_TIME {
        out.extend_from_slice(b"null");
    } else {
        put_integer(&mut out, entry.time - entry.since);
    }
    out.extend_from_slice(b",\"context\":{");
    let details = &change.participant;
    let of_participant = [PURPOSE, USER_ID, QUEUE_ID].map(|field| (PARTICIPANT_DETAILS[field], &details.0[field]));
    let of_communication = [DISCONNECT_TYPE, ERROR_CODE, DISCONNECT_REASONS]
        .map(|field| (COMMUNICATION_DETAILS[field], &change.communication.0[field]));
    let context = of_participant.into_iter().chain(of_communication);
    let known = context.filter_map(|(name, value)| value.as_ref().map(|value| (name, value)));
    put_separated(&mut out, known, |out, (name, value)| {
        put_name(out, name);
        value.encode(out);
    });
    out.extend_from_slice(b"},\"source\":");
    put_source(&mut out, source);
    out.push(b'}');
    out
}

fn put_nullable(out: &mut Vec<u8>, text: &Option<Text>) {
    match text {
        Some(text) => put_text(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

/// A digest of what identifies the transition, so that every worker derives the same id.
fn digest_id(conversation_id: &str, change: &Change, entry: &Entry) -> String {
    let mut parts = Vec::with_capacity(256);
    let text = |parts: &mut Vec<u8>, part: &str| {
        parts.extend_from_slice(part.as_bytes());
        parts.push(SEPARATOR);
    };
    text(&mut parts, conversation_id);
    text(&mut parts, &change.participant_id);
    text(&mut parts, MEDIA[usize::from(change.media)]);
    text(&mut parts, change.communication_id.as_deref().unwrap_or(""));
    text(&mut parts, entry.from_state.as_deref().unwrap_or(""));
    text(&mut parts, &entry.to_state);
    put_integer(&mut parts, entry.rank.into());
    parts.push(SEPARATOR);
    if entry.cycle != NO_TIME {
        parts.extend_from_slice(&to_text(entry.cycle));
    }
    parts.push(SEPARATOR);
    parts.extend_from_slice(&to_text(entry.time));
    Params::new().hash_length(16).hash(&parts).to_hex().to_string()
}
