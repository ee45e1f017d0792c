//! States of a communication and their ranks, and how enumerations are folded. As `core/lifecycle.py`.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, LazyLock};

/// A text that is shared by everything that holds it.
pub type Text = Arc<str>;

pub const BEFORE: u8 = 0;
pub const LIVE: u8 = 1;
pub const DISCONNECTED: u8 = 2;
pub const TERMINATED: u8 = 3;

pub const PARKED: &str = "parked";
pub const CONNECTED: &str = "connected";
pub const ALERTING: &str = "alerting";

const BEFORE_ORDER: [&str; 6] = ["none", "scheduled", "offering", "contacting", "dialing", "alerting"];

const DISCONNECT_TYPES: [&str; 23] = [
    "client",
    "endpoint",
    "endpoint.dnd",
    "endpoint.donotdisturb",
    "error",
    "inactivity",
    "other",
    "peer",
    "session.expired",
    "spam",
    "system",
    "takeover",
    "timeout",
    "transfer",
    "transfer.conference",
    "transfer.consult",
    "transfer.dnd",
    "transfer.donotdisturb",
    "transfer.forward",
    "transfer.noanswer",
    "transfer.notavailable",
    "transport.failure",
    "uncallable",
];

/// FNV-1a, a third of the standard hash's cost. What is looked up below is fixed, so no record can make it collide.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Values that occur again and again: they are looked up instead of allocated.
static SHARED: LazyLock<HashMap<&'static str, Text, BuildHasherDefault<Fnv>>> = LazyLock::new(|| {
    let states = ["connected", "parked", "uploading", "converting", "transmitting", "disconnected", "terminated"];
    let others =
        ["inbound", "outbound", "customer", "agent", "acd", "sharer", "viewer", "user", "external", "workflow"];
    let texts = BEFORE_ORDER.iter().chain(&states).chain(&DISCONNECT_TYPES).chain(&others);
    texts.map(|text| (*text, Text::from(*text))).collect()
});

/// The length of the longest shared value.
static SHARED_LENGTH_MAX: LazyLock<usize> = LazyLock::new(|| SHARED.keys().map(|text| text.len()).max().unwrap_or(0));

fn find_shared(value: &str) -> Option<Text> {
    if value.len() > *SHARED_LENGTH_MAX { None } else { SHARED.get(value).cloned() }
}

/// The rank of a state that the public models name.
pub fn rank(state: &str) -> Option<u8> {
    match state {
        "connected" | "parked" | "uploading" | "converting" | "transmitting" => Some(LIVE),
        "disconnected" => Some(DISCONNECTED),
        "terminated" => Some(TERMINATED),
        _ => BEFORE_ORDER.contains(&state).then_some(BEFORE),
    }
}

/// The order of states before the communication is live, if their times are equal.
pub fn before_order(state: &str) -> usize {
    BEFORE_ORDER.iter().position(|known| *known == state).unwrap_or(BEFORE_ORDER.len())
}

pub fn is_known_disconnect_type(value: &str) -> bool {
    DISCONNECT_TYPES.contains(&value)
}

/// Fold an enumeration value to the spelling that is kept; None where its case is not ASCII's.
pub fn fold_case(value: &str) -> Option<Text> {
    if let Some(shared) = find_shared(value) {
        return Some(shared);
    }
    if !value.is_ascii() {
        return None;
    }
    let folded = value.to_ascii_lowercase().replace('_', ".");
    Some(find_shared(&folded).unwrap_or_else(|| Text::from(folded)))
}

/// A text as it is; frequent ones are shared.
pub fn share(value: &str) -> Text {
    find_shared(value).unwrap_or_else(|| Text::from(value))
}
