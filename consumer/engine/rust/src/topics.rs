//! Notification topics and the shape that each carries. As `core/notification_topics.py`.

use crate::state::Media;

/// What the name of a topic determines.
#[derive(Clone, Copy)]
pub struct Topic {
    pub template: &'static str,
    /// The medium of a flat body, None for a nested one.
    pub medium: Option<Media>,
    /// Why a record of this topic is ignored.
    pub ignored: Option<&'static str>,
}

pub const NO_TOPIC: Topic = Topic { template: "none", medium: None, ignored: None };
/// The template of all topics that are ignored.
pub const OTHER: &str = "other";

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

/// Classify a topic by its name; None where it is not ASCII, whose case Python folds otherwise.
pub fn classify(name: &str) -> Option<Topic> {
    if name.is_empty() {
        return Some(NO_TOPIC);
    }
    if !name.is_ascii() {
        return None;
    }
    let ignored = |reason| Topic { template: OTHER, medium: None, ignored: Some(reason) };
    Some(classify_update(name).unwrap_or_else(|| {
        let mut parts = name.split('.');
        let (version, owner) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        if name.eq_ignore_ascii_case("channel.metadata") {
            ignored("heartbeat")
        } else if version.eq_ignore_ascii_case("v2") && owner.eq_ignore_ascii_case("system") {
            ignored("system")
        } else {
            ignored("other_topic")
        }
    }))
}

/// Classify a topic of conversation updates; None for any other.
fn classify_update(name: &str) -> Option<Topic> {
    let update = |template, medium| Some(Topic { template, medium, ignored: None });
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
        return update(
            if is_user { "v2.users.{id}.conversations" } else { "v2.routing.queues.{id}.conversations" },
            None,
        );
    };
    let (name, media, of_user, of_queue) = FLAT.iter().find(|(known, ..)| suffix.eq_ignore_ascii_case(known))?;
    if is_user {
        return update(of_user, Some(*media));
    }
    update(of_queue, (!NESTED_OF_QUEUE.contains(name)).then_some(*media))
}
