//! The properties that are used of a conversation update. As `schemas/inbound.py`.
//!
//! What is declared here for all media is read of those only that have it, but it has to be of its type wherever it
//! stands: else the record is declined, as it is for a property that stands twice.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Characters of a text that is kept.
const TEXT_LENGTH_MAX: usize = 256;

/// A text of the wire that is not kept as it came, borrowed where it is not escaped.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct Passing<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Passing<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// A text of the wire that is kept, of bounded length.
pub struct Name<'a>(Passing<'a>);

impl Deref for Name<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Passing::deserialize(deserializer)?;
        if text.len() > TEXT_LENGTH_MAX && text.chars().count() > TEXT_LENGTH_MAX {
            return Err(D::Error::custom("a text that is too long"));
        }
        Ok(Name(text))
    }
}

/// A text that is not empty, which stands for no value.
pub fn get(text: &Option<impl Deref<Target = str>>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// An object: serde would read the fields of a struct from an array as well.
pub struct Object<T>(pub T);

impl<T> Deref for Object<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// A time as it stands on the wire.
#[derive(Clone, Copy, Default)]
pub enum WireTime<'a> {
    #[default]
    Absent,
    Text(&'a str),
    Milliseconds(i64),
}

impl<'de: 'a, 'a> Deserialize<'de> for WireTime<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TimeVisitor;
        impl<'de> Visitor<'de> for TimeVisitor {
            type Value = WireTime<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a time")
            }

            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(WireTime::Absent)
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(WireTime::Text(text))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                Ok(WireTime::Milliseconds(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
                i64::try_from(number).map(WireTime::Milliseconds).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(TimeVisitor)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Payload<'a> {
    #[serde(borrow)]
    pub id: Option<Name<'a>>,
    #[serde(borrow)]
    pub participants: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    pub topic_name: Option<Passing<'a>>,
    #[serde(borrow)]
    pub event_body: Option<Object<Body<'a>>>,
    #[serde(borrow, rename = "detail-type")]
    pub detail_type: Option<Passing<'a>>,
    #[serde(borrow)]
    pub detail: Option<Object<Detail<'a>>>,
}

#[derive(Deserialize)]
pub struct Body<'a> {
    #[serde(borrow)]
    pub id: Option<Name<'a>>,
    #[serde(borrow)]
    pub participants: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Detail<'a> {
    #[serde(borrow)]
    pub topic_name: Option<Passing<'a>>,
    #[serde(borrow)]
    pub event_body: Option<Object<Body<'a>>>,
    #[serde(borrow, default)]
    pub timestamp: WireTime<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wrapup<'a> {
    #[serde(borrow)]
    pub code: Option<Name<'a>>,
    pub duration_seconds: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AfterCallWork<'a> {
    #[serde(borrow)]
    pub state: Option<Name<'a>>,
    #[serde(borrow, default)]
    pub start_time: WireTime<'a>,
    #[serde(borrow, default)]
    pub end_time: WireTime<'a>,
}

/// A communication of the nested shape, with the properties of all media.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Communication<'a> {
    #[serde(borrow)]
    pub id: Option<Name<'a>>,
    #[serde(borrow)]
    pub state: Option<Name<'a>>,
    #[serde(borrow)]
    pub initial_state: Option<Name<'a>>,
    #[serde(borrow)]
    pub provider: Option<Name<'a>>,
    #[serde(borrow)]
    pub disconnect_type: Option<Name<'a>>,
    #[serde(borrow, default)]
    pub connected_time: WireTime<'a>,
    #[serde(borrow, default)]
    pub disconnected_time: WireTime<'a>,
    #[serde(borrow)]
    pub peer_id: Option<Name<'a>>,
    #[serde(borrow)]
    pub wrapup: Option<Object<Wrapup<'a>>>,
    #[serde(borrow)]
    pub after_call_work: Option<Object<AfterCallWork<'a>>>,
    pub after_call_work_required: Option<bool>,
    #[serde(borrow)]
    pub direction: Option<Name<'a>>,
    pub held: Option<bool>,
    pub muted: Option<bool>,
    #[serde(borrow, rename = "type")]
    pub message_type: Option<Name<'a>>,
    #[serde(borrow)]
    pub room_id: Option<Passing<'a>>,
    #[serde(borrow)]
    pub cobrowse_session_id: Option<Passing<'a>>,
    #[serde(borrow)]
    pub cobrowse_role: Option<Name<'a>>,
    #[serde(borrow)]
    pub controlling: Option<Vec<Option<Name<'a>>>>,
    #[serde(borrow)]
    pub viewer_url: Option<Passing<'a>>,
    #[serde(borrow, default)]
    pub provider_event_time: WireTime<'a>,
    #[serde(borrow, default)]
    pub park_time: WireTime<'a>,
}

pub type Communications<'a> = Option<Vec<Option<Object<Communication<'a>>>>>;

/// A participant in the nested shape.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Participant<'a> {
    #[serde(borrow)]
    pub id: Option<Name<'a>>,
    #[serde(borrow)]
    pub purpose: Option<Name<'a>>,
    #[serde(borrow)]
    pub user_id: Option<Name<'a>>,
    #[serde(borrow)]
    pub queue_id: Option<Name<'a>>,
    #[serde(borrow)]
    pub team_id: Option<Name<'a>>,
    #[serde(borrow)]
    pub external_contact_id: Option<Name<'a>>,
    pub wrapup_required: Option<bool>,
    /// A state on the participant itself, as only the flat shape has it.
    #[serde(borrow)]
    pub state: Option<&'a RawValue>,
    #[serde(borrow)]
    pub calls: Communications<'a>,
    #[serde(borrow)]
    pub callbacks: Communications<'a>,
    #[serde(borrow)]
    pub chats: Communications<'a>,
    #[serde(borrow)]
    pub cobrowsesessions: Communications<'a>,
    #[serde(borrow)]
    pub emails: Communications<'a>,
    #[serde(borrow)]
    pub internal_messages: Communications<'a>,
    #[serde(borrow)]
    pub messages: Communications<'a>,
    #[serde(borrow)]
    pub screen_monitorings: Communications<'a>,
    #[serde(borrow)]
    pub screenshares: Communications<'a>,
    #[serde(borrow)]
    pub social_expressions: Communications<'a>,
    #[serde(borrow)]
    pub videos: Communications<'a>,
}

impl<'a> Participant<'a> {
    /// The eleven arrays, in the order of the media.
    pub fn arrays(&self) -> [&Communications<'a>; 11] {
        [
            &self.calls,
            &self.callbacks,
            &self.chats,
            &self.cobrowsesessions,
            &self.emails,
            &self.internal_messages,
            &self.messages,
            &self.screen_monitorings,
            &self.screenshares,
            &self.social_expressions,
            &self.videos,
        ]
    }
}

#[derive(Deserialize)]
pub struct Reference<'a> {
    #[serde(borrow)]
    pub id: Option<Name<'a>>,
}

/// A participant in the flat shape: its one communication has no id.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlatParticipant<'a> {
    #[serde(borrow)]
    pub id: Option<Name<'a>>,
    #[serde(borrow)]
    pub purpose: Option<Name<'a>>,
    #[serde(borrow)]
    pub user: Option<Object<Reference<'a>>>,
    #[serde(borrow)]
    pub queue: Option<Object<Reference<'a>>>,
    #[serde(borrow)]
    pub team: Option<Object<Reference<'a>>>,
    #[serde(borrow)]
    pub external_contact: Option<Object<Reference<'a>>>,
    pub wrapup_required: Option<bool>,
    #[serde(borrow)]
    pub state: Option<Name<'a>>,
    #[serde(borrow)]
    pub initial_state: Option<Name<'a>>,
    #[serde(borrow)]
    pub provider: Option<Name<'a>>,
    #[serde(borrow)]
    pub disconnect_type: Option<Name<'a>>,
    #[serde(borrow)]
    pub direction: Option<Name<'a>>,
    pub held: Option<bool>,
    pub muted: Option<bool>,
    #[serde(borrow)]
    pub peer: Option<Name<'a>>,
    #[serde(borrow, rename = "type")]
    pub message_type: Option<Name<'a>>,
    #[serde(borrow)]
    pub wrapup: Option<Object<Wrapup<'a>>>,
    #[serde(borrow, default)]
    pub connected_time: WireTime<'a>,
    #[serde(borrow, default)]
    pub end_time: WireTime<'a>,
    #[serde(borrow, default)]
    pub park_time: WireTime<'a>,
    #[serde(borrow, default)]
    pub start_acw_time: WireTime<'a>,
    #[serde(borrow, default)]
    pub end_acw_time: WireTime<'a>,
    #[serde(borrow)]
    pub cobrowse_session_id: Option<Passing<'a>>,
    #[serde(borrow)]
    pub cobrowse_role: Option<Name<'a>>,
    #[serde(borrow)]
    pub controlling: Option<Vec<Option<Name<'a>>>>,
    #[serde(borrow)]
    pub viewer_url: Option<Passing<'a>>,
    #[serde(borrow, default)]
    pub provider_event_time: WireTime<'a>,
}
