//! Notification topics and the shape that each carries. As `core/notification_topics.py`.

use crate::state::Media;

/// What the name of a topic determines.
#[derive(Clone, Copy)]
pub struct Topic {
    pub template: &'static str,
    /// The medium of a flat body, None for a nested one.
    pub medium: Option<Media>,
}

pub const NO_TOPIC: Topic = Topic { template: "none", medium: None };

const FLAT: [(&str, Media, &str, &str); 9] = [
    ("calls", 0, "v2.users.{id}.conversations.calls", "v2.routing.queues.{id}.conversations.calls"),
    ("callbacks", 1, "v2.users.{id}.conversations.callbacks", "v2.routing.queues.{id}.conversations.callbacks"),
    ("chats", 2, "v2.users.{id}.conversations.chats", "v2.routing.queues.{id}.conversations.chats"),
    (
        "cobrowsesessions",
        3,
        "v2.users.{id}.conversations.cobrowsesessions",
        "v2.routing.queues.{id}.conversations.cobrowsesessions",
    ),
    ("emails", 4, "v2.users.{id}.conversations.emails", "v2.routing.queues.{id}.conversations.emails"),
    ("messages", 6, "v2.users.{id}.conversations.messages", "v2.routing.queues.{id}.conversations.messages"),
    (
        "screenshares",
        8,
        "v2.users.{id}.conversations.screenshares",
        "v2.routing.queues.{id}.conversations.screenshares",
    ),
    (
        "socialexpressions",
        9,
        "v2.users.{id}.conversations.socialexpressions",
        "v2.routing.queues.{id}.conversations.socialexpressions",
    ),
    ("videos", 10, "v2.users.{id}.conversations.videos", "v2.routing.queues.{id}.conversations.videos"),
];
const NESTED_OF_QUEUE: [&str; 2] = ["socialexpressions", "videos"];

/// Classify a topic by its name; None where it carries no conversation update, or is not known.
pub fn classify(name: &str) -> Option<Topic> {
    if name.is_empty() {
        return Some(NO_TOPIC);
    }
    if !name.is_ascii() {
        return None;
    }
    let mut parts = name.split('.');
    let mut next = || parts.next().unwrap_or("");
    let (version, owner) = (next(), next());
    if !version.eq_ignore_ascii_case("v2") {
        return None;
    }
    let is_user = owner.eq_ignore_ascii_case("users");
    let is_owned = is_user || (owner.eq_ignore_ascii_case("routing") && next().eq_ignore_ascii_case("queues"));
    if !is_owned {
        return None;
    }
    next();
    if !next().eq_ignore_ascii_case("conversations") {
        return None;
    }
    let suffix = parts.next();
    if parts.next().is_some() {
        return None;
    }
    let Some(suffix) = suffix else {
        let template = if is_user { "v2.users.{id}.conversations" } else { "v2.routing.queues.{id}.conversations" };
        return Some(Topic { template, medium: None });
    };
    let (name, media, of_user, of_queue) = FLAT.iter().find(|(known, ..)| suffix.eq_ignore_ascii_case(known))?;
    if is_user {
        return Some(Topic { template: of_user, medium: Some(*media) });
    }
    let medium = (!NESTED_OF_QUEUE.contains(name)).then_some(*media);
    Some(Topic { template: of_queue, medium })
}
