//! Write JSON exactly as msgspec does.

use crate::lifecycle::Text;
use crate::parser::find_mark;
use crate::timestamps::{Time, to_text};

const HEX: &[u8; 16] = b"0123456789abcdef";

pub fn put_text(out: &mut Vec<u8>, text: &str) {
    if find_mark(text.as_bytes(), 0).is_none() {
        put_plain(out, text);
    } else {
        out.push(b'"');
        for byte in text.as_bytes() {
            match byte {
                b'"' => out.extend_from_slice(b"\\\""),
                b'\\' => out.extend_from_slice(b"\\\\"),
                0x08 => out.extend_from_slice(b"\\b"),
                b'\t' => out.extend_from_slice(b"\\t"),
                b'\n' => out.extend_from_slice(b"\\n"),
                0x0c => out.extend_from_slice(b"\\f"),
                b'\r' => out.extend_from_slice(b"\\r"),
                byte if *byte < 0x20 => {
                    let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                    out.extend_from_slice(b"\\u00");
                    out.extend_from_slice(&digits);
                }
                byte => out.push(*byte),
            }
        }
        out.push(b'"');
    }
}

/// Write a text that needs no escapes.
pub fn put_plain(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Write the name of a member, which needs no escapes.
pub fn put_name(out: &mut Vec<u8>, name: &str) {
    put_plain(out, name);
    out.push(b':');
}

pub fn put_time(out: &mut Vec<u8>, time: Time) {
    out.push(b'"');
    out.extend_from_slice(&to_text(time));
    out.push(b'"');
}

pub fn put_integer(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

pub fn put_texts(out: &mut Vec<u8>, texts: &[Text]) {
    out.push(b'[');
    put_separated(out, texts, |out, text| put_text(out, text));
    out.push(b']');
}

/// Write what `put` writes of each item, with commas between.
pub fn put_separated<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, mut put: impl FnMut(&mut Vec<u8>, T)) {
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        put(out, item);
    }
}
