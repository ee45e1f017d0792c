//! Encode and decode the published state of a conversation. As `core/state_codec.py`.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::conversation::{Conversation, KnownParticipant};
use crate::json::{put_integer, put_name, put_plain, put_separated, put_text, put_texts, put_time};
use crate::lifecycle::{Text, share};
use crate::registers::{Older, Registers, Value};
use crate::state::{
    COMMUNICATION_DETAILS, CONVERSATION_DETAILS, CommunicationState, ConversationDetails, MEDIA, Observation,
    PARTICIPANT_DETAILS, ParticipantState, STANDINGS, Source, Standing, Summary, TIME_CLASSES, Transfer, Version,
    detail_names,
};
use crate::timestamps::{NO_TIME, PUBLISHED_LENGTH, Time, parse_published, to_text};

const SCHEMA: i64 = 1;
const STATE_BEGIN: &[u8] = b"{\"schema\":1,\"snapshotTime\":\"";
const PARTICIPANTS: &[u8] = b",\"participants\":[";
const SNAPSHOT_TIME: &[u8] = b",\"snapshotTime\":\"";

/// A state but for its participants.
pub struct Header<'a> {
    pub snapshot_time: Time,
    pub encoded_summary: &'a [u8],
    pub conversation_id: &'a str,
    pub source: &'a Source,
    /// The details of the conversation, which follow the participants.
    pub encoded_details: &'a [u8],
}

/// Encode a state from what its participants are encoded as.
pub fn encode<'a>(header: &Header, participants: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let size = participants.clone().map(|encoded| encoded.len() + 1).sum::<usize>();
    let mut out = Vec::with_capacity(
        size + header.encoded_summary.len() + header.conversation_id.len() + header.encoded_details.len() + 256,
    );
    out.extend_from_slice(STATE_BEGIN);
    out.extend_from_slice(&to_text(header.snapshot_time));
    out.extend_from_slice(b"\",");
    out.extend_from_slice(header.encoded_summary);
    out.extend_from_slice(b",\"conversationId\":");
    put_text(&mut out, header.conversation_id);
    out.extend_from_slice(b",\"source\":");
    put_source(&mut out, header.source);
    if participants.clone().next().is_some() {
        out.extend_from_slice(PARTICIPANTS);
        put_separated(&mut out, participants, |out, encoded| out.extend_from_slice(encoded));
        out.push(b']');
    }
    out.extend_from_slice(header.encoded_details);
    out.push(b'}');
    out
}

/// The size of an encoded state whose `count` participants take `size` bytes with a comma after each.
pub fn measure(header: &Header, size: usize, count: usize) -> usize {
    let without = encode(header, std::iter::empty());
    if count == 0 { without.len() } else { without.len() + PARTICIPANTS.len() + size }
}

pub fn put_source(out: &mut Vec<u8>, source: &Source) {
    out.extend_from_slice(b"{\"topic\":");
    put_text(out, &source.topic);
    out.extend_from_slice(b",\"partition\":");
    put_integer(out, source.partition);
    out.extend_from_slice(b",\"offset\":");
    put_integer(out, source.offset);
    out.push(b'}');
}

pub fn encode_summary(summary: &Summary) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(b"\"live\":");
    put_integer(&mut out, summary.live);
    out.extend_from_slice(b",\"communications\":{");
    let by_media: Vec<_> = summary.communications.chunk_by(|((left, _), _), ((right, _), _)| left == right).collect();
    put_separated(&mut out, by_media, |out, states| {
        put_name(out, MEDIA[usize::from(states[0].0.0)]);
        out.push(b'{');
        put_separated(out, states, |out, ((_, state), count)| {
            put_text(out, state);
            out.push(b':');
            put_integer(out, *count);
        });
        out.push(b'}');
    });
    out.extend_from_slice(b"},\"liveSince\":{");
    put_separated(&mut out, &summary.live_since, |out, (media, since)| {
        put_name(out, MEDIA[usize::from(*media)]);
        out.push(b'[');
        put_separated(out, since, |out, time| put_time(out, *time));
        out.push(b']');
    });
    out.push(b'}');
    out
}

/// The details of a conversation with their times, as they follow the participants; nothing where there are none.
pub fn encode_details(details: &ConversationDetails, times: &Older<Time>) -> Vec<u8> {
    let mut out = Vec::new();
    if details.0.iter().any(Option::is_some) {
        out.extend_from_slice(b",\"details\":");
        put_details(&mut out, details, &CONVERSATION_DETAILS);
    }
    if !times.is_empty() {
        out.extend_from_slice(b",\"detailTimes\":");
        put_older(&mut out, times, &CONVERSATION_DETAILS, |out, time| put_time(out, *time));
    }
    out
}

pub fn encode_participant(participant: &ParticipantState) -> Vec<u8> {
    let mut out = Vec::with_capacity(1_536);
    out.extend_from_slice(b"{\"participantId\":");
    put_text(&mut out, &participant.participant_id);
    out.extend_from_slice(SNAPSHOT_TIME);
    out.extend_from_slice(&to_text(participant.snapshot_time));
    out.extend_from_slice(b"\",\"details\":");
    put_details(&mut out, &participant.details, &PARTICIPANT_DETAILS);
    if !participant.communications.is_empty() {
        out.extend_from_slice(b",\"communications\":[");
        put_separated(&mut out, &participant.communications, |out, known| put_communication(out, known));
        out.push(b']');
    }
    if !participant.detail_times.is_empty() {
        out.extend_from_slice(b",\"detailTimes\":");
        put_older(&mut out, &participant.detail_times, &PARTICIPANT_DETAILS, |out, time| put_time(out, *time));
    }
    out.push(b'}');
    out
}

/// Write a participant's snapshot time into its encoded form, where it has a fixed place and width.
pub fn replace_snapshot_time(participant: &mut KnownParticipant) {
    let mut id = Vec::with_capacity(64);
    put_text(&mut id, &participant.state.participant_id);
    let begin = b"{\"participantId\":".len() + id.len() + SNAPSHOT_TIME.len();
    let text = to_text(participant.state.snapshot_time);
    participant.encoded[begin..begin + PUBLISHED_LENGTH].copy_from_slice(&text);
}

fn put_communication(out: &mut Vec<u8>, known: &CommunicationState) {
    out.extend_from_slice(b"{\"media\":");
    put_plain(out, MEDIA[usize::from(known.media)]);
    out.extend_from_slice(b",\"details\":");
    put_details(out, &known.details, &COMMUNICATION_DETAILS);
    out.extend_from_slice(b",\"version\":");
    put_version(out, &known.version);
    out.extend_from_slice(b",\"timeline\":[");
    put_separated(out, known.timeline.iter(), put_observation);
    out.push(b']');
    put_optional(out, b",\"communicationId\":", &known.communication_id);
    put_optional(out, b",\"sessionDigest\":", &known.session_digest);
    if let Some(standing) = known.standing {
        out.extend_from_slice(b",\"standing\":");
        put_plain(out, STANDINGS[standing as usize]);
    }
    put_optional(out, b",\"joinedTo\":", &known.joined_to);
    if let Some(state) = &known.state {
        out.extend_from_slice(b",\"state\":");
        put_text(out, state);
        out.extend_from_slice(b",\"stateTime\":");
        put_time(out, known.state_time);
        out.extend_from_slice(b",\"timeClass\":");
        put_plain(out, TIME_CLASSES[usize::from(known.time_class)]);
        out.extend_from_slice(b",\"began\":");
        put_time(out, known.began);
    }
    if known.live {
        out.extend_from_slice(b",\"live\":true");
    }
    if !known.detail_versions.is_empty() {
        out.extend_from_slice(b",\"detailVersions\":");
        put_older(out, &known.detail_versions, &COMMUNICATION_DETAILS, put_version);
    }
    if let Some(own) = &known.own_details {
        out.extend_from_slice(b",\"ownDetails\":");
        put_details(out, own, &COMMUNICATION_DETAILS);
    }
    if !known.other_session_digests.is_empty() {
        out.extend_from_slice(b",\"otherSessionDigests\":");
        put_texts(out, &known.other_session_digests);
    }
    out.push(b'}');
}

fn put_optional(out: &mut Vec<u8>, name: &[u8], text: &Option<Text>) {
    if let Some(text) = text {
        out.extend_from_slice(name);
        put_text(out, text);
    }
}

fn put_observation(out: &mut Vec<u8>, observation: &Observation) {
    out.extend_from_slice(b"{\"state\":");
    put_text(out, &observation.state);
    out.extend_from_slice(b",\"rank\":");
    put_integer(out, observation.rank.into());
    out.extend_from_slice(b",\"time\":");
    put_time(out, observation.time);
    out.extend_from_slice(b",\"timeClass\":");
    put_plain(out, TIME_CLASSES[usize::from(observation.time_class)]);
    if observation.cycle != NO_TIME {
        out.extend_from_slice(b",\"cycle\":");
        put_time(out, observation.cycle);
    }
    out.push(b'}');
}

fn put_version(out: &mut Vec<u8>, version: &Version) {
    out.extend_from_slice(b"{\"rank\":");
    put_integer(out, version.rank.into());
    let times: [(&[u8], Time); 3] = [
        (b",\"cycle\":", version.cycle),
        (b",\"ownTime\":", version.own_time),
        (b",\"snapshotTime\":", version.snapshot_time),
    ];
    for (name, time) in times {
        if time != NO_TIME {
            out.extend_from_slice(name);
            put_time(out, time);
        }
    }
    out.push(b'}');
}

fn put_details<const N: usize>(out: &mut Vec<u8>, details: &Registers<N>, names: &[&str; N]) {
    out.push(b'{');
    let shown = details.0.iter().zip(names).filter_map(|(value, name)| value.as_ref().map(|value| (name, value)));
    put_separated(out, shown, |out, (name, value)| {
        put_name(out, name);
        value.encode(out);
    });
    out.push(b'}');
}

fn put_older<V>(out: &mut Vec<u8>, older: &Older<V>, names: &[&str], put: impl Fn(&mut Vec<u8>, &V)) {
    out.push(b'{');
    put_separated(out, older, |out, (field, version)| {
        put_name(out, names[usize::from(*field)]);
        put(out, version);
    });
    out.push(b'}');
}

/// Decode a published state. An error where it is none, or holds what this engine does not know: Python decodes it then.
pub fn decode(published: &[u8]) -> Result<Conversation, serde_json::Error> {
    let state: PublishedState = serde_json::from_slice(published)?;
    if state.schema != SCHEMA {
        return Err(Error::custom("another schema"));
    }
    let mut summary = Summary { live: state.live, ..Summary::default() };
    for (PublishedMedia(media), states) in state.communications.0 {
        summary.communications.extend(states.0.into_iter().map(|(text, count)| ((media, share(&text)), count)));
    }
    let since = state.live_since.0.into_iter();
    summary.live_since =
        since.map(|(PublishedMedia(media), times)| (media, times.into_iter().map(|time| time.0).collect())).collect();
    let encoded_summary = encode_summary(&summary);
    let details = Arc::new(state.details.map_or_else(ConversationDetails::default, |details| details.0));
    let detail_times = state.detail_times.0.into_iter().map(|(field, time)| (field, time.0)).collect();
    let encoded_details = encode_details(&details, &detail_times);
    Ok(Conversation {
        conversation_id: Text::from(&*state.conversation_id),
        snapshot_time: state.snapshot_time.0,
        summary,
        source: Source {
            topic: Text::from(&*state.source.topic),
            partition: state.source.partition,
            offset: state.source.offset,
        },
        participants: state.participants.into_iter().map(|known| KnownParticipant::new(known.into())).collect(),
        encoded_summary,
        details,
        detail_times,
        encoded_details,
        listed: Vec::new(),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PublishedState<'a> {
    schema: i64,
    snapshot_time: PublishedTime,
    live: i64,
    #[serde(borrow)]
    communications: Pairs<PublishedMedia, Pairs<Name<'a>, i64>>,
    live_since: Pairs<PublishedMedia, Vec<PublishedTime>>,
    #[serde(borrow)]
    conversation_id: Name<'a>,
    #[serde(borrow)]
    source: PublishedSource<'a>,
    #[serde(default, borrow)]
    participants: Vec<PublishedParticipant<'a>>,
    #[serde(default)]
    details: Option<Details<{ CONVERSATION_DETAILS.len() }>>,
    #[serde(default)]
    detail_times: OlderVersions<{ CONVERSATION_DETAILS.len() }, PublishedTime>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishedSource<'a> {
    #[serde(borrow)]
    topic: Name<'a>,
    partition: i64,
    offset: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PublishedParticipant<'a> {
    #[serde(borrow)]
    participant_id: Name<'a>,
    snapshot_time: PublishedTime,
    details: Details<{ PARTICIPANT_DETAILS.len() }>,
    #[serde(default, borrow)]
    communications: Vec<PublishedCommunication<'a>>,
    #[serde(default)]
    detail_times: OlderVersions<{ PARTICIPANT_DETAILS.len() }, PublishedTime>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PublishedCommunication<'a> {
    media: PublishedMedia,
    details: Details<{ COMMUNICATION_DETAILS.len() }>,
    version: PublishedVersion,
    timeline: Vec<PublishedObservation>,
    #[serde(default, borrow)]
    communication_id: Option<Name<'a>>,
    #[serde(default, borrow)]
    session_digest: Option<Name<'a>>,
    #[serde(default)]
    standing: Option<PublishedStanding>,
    #[serde(default, borrow)]
    joined_to: Option<Name<'a>>,
    #[serde(default, borrow)]
    state: Option<Name<'a>>,
    #[serde(default)]
    state_time: PublishedTime,
    #[serde(default)]
    time_class: Option<PublishedTimeClass>,
    #[serde(default)]
    began: PublishedTime,
    #[serde(default)]
    live: bool,
    #[serde(default)]
    detail_versions: OlderVersions<{ COMMUNICATION_DETAILS.len() }, PublishedVersion>,
    #[serde(default)]
    own_details: Option<Details<{ COMMUNICATION_DETAILS.len() }>>,
    #[serde(default, borrow)]
    other_session_digests: Vec<Name<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PublishedVersion {
    rank: Rank,
    #[serde(default)]
    cycle: PublishedTime,
    #[serde(default)]
    own_time: PublishedTime,
    #[serde(default)]
    snapshot_time: PublishedTime,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PublishedObservation {
    state: SharedText,
    rank: Rank,
    time: PublishedTime,
    time_class: PublishedTimeClass,
    #[serde(default)]
    cycle: PublishedTime,
}

/// A rank; another number is an error.
#[derive(Deserialize)]
#[serde(try_from = "u8")]
struct Rank(u8);

impl TryFrom<u8> for Rank {
    type Error = &'static str;

    fn try_from(rank: u8) -> Result<Self, Self::Error> {
        if rank <= 3 { Ok(Rank(rank)) } else { Err("no rank") }
    }
}

impl From<PublishedVersion> for Version {
    fn from(version: PublishedVersion) -> Self {
        Version {
            rank: version.rank.0,
            cycle: version.cycle.0,
            own_time: version.own_time.0,
            snapshot_time: version.snapshot_time.0,
        }
    }
}

impl From<PublishedParticipant<'_>> for ParticipantState {
    fn from(known: PublishedParticipant) -> Self {
        ParticipantState {
            participant_id: known.participant_id.text(),
            snapshot_time: known.snapshot_time.0,
            details: Arc::new(known.details.0),
            communications: known.communications.into_iter().map(|known| Arc::new(known.into())).collect(),
            detail_times: known.detail_times.0.into_iter().map(|(field, time)| (field, time.0)).collect(),
        }
    }
}

impl From<PublishedCommunication<'_>> for CommunicationState {
    fn from(known: PublishedCommunication) -> Self {
        CommunicationState {
            media: known.media.0,
            details: Arc::new(known.details.0),
            version: known.version.into(),
            timeline: Arc::new(known.timeline.into_iter().map(Observation::from).collect()),
            communication_id: known.communication_id.map(|id| id.text()),
            session_digest: known.session_digest.map(|digest| digest.text()),
            standing: known.standing.map(|standing| Standing::ALL[usize::from(standing.0)]),
            joined_to: known.joined_to.map(|id| id.text()),
            state: known.state.map(|state| share(&state)),
            state_time: known.state_time.0,
            time_class: known.time_class.map_or(0, |class| class.0),
            began: known.began.0,
            live: known.live,
            detail_versions: known.detail_versions.0.into_iter().map(|(field, older)| (field, older.into())).collect(),
            own_details: known.own_details.map(|own| Arc::new(own.0)),
            other_session_digests: known.other_session_digests.into_iter().map(|digest| digest.text()).collect(),
        }
    }
}

impl From<PublishedObservation> for Observation {
    fn from(known: PublishedObservation) -> Self {
        Observation {
            state: known.state.0,
            rank: known.rank.0,
            time: known.time.0,
            time_class: known.time_class.0,
            cycle: known.cycle.0,
        }
    }
}

/// A text that may be escaped.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl Name<'_> {
    fn text(&self) -> Text {
        Text::from(&*self.0)
    }
}

impl std::ops::Deref for Name<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// A text that often occurs.
struct SharedText(Text);

impl<'de> Deserialize<'de> for SharedText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_text(deserializer, |text| Some(SharedText(share(text))))
    }
}

/// A time in its published text.
#[derive(Default)]
struct PublishedTime(Time);

impl<'de> Deserialize<'de> for PublishedTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_text(deserializer, |text| parse_published(text).map(PublishedTime))
    }
}

/// A type that is read from one of some names, as its index.
macro_rules! read_by_name {
    ($name:ident, $names:expr) => {
        struct $name(u8);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let find = |text: &str| $names.iter().position(|name| *name == text);
                read_text(deserializer, |text| find(text).map(|index| $name(index as u8)))
            }
        }
    };
}

read_by_name!(PublishedMedia, MEDIA);
read_by_name!(PublishedTimeClass, TIME_CLASSES);
read_by_name!(PublishedStanding, STANDINGS);

fn read_text<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, D::Error> {
    deserializer.deserialize_str(TextVisitor(read))
}

/// Reads a text; where the function gives nothing the text is an error.
struct TextVisitor<F>(F);

impl<T, F: FnOnce(&str) -> Option<T>> Visitor<'_> for TextVisitor<F> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a published text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).ok_or_else(|| E::custom("not a published text"))
    }
}

/// The members of an object, in order.
struct Pairs<K, V>(Vec<(K, V)>);

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for Pairs<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor<K, V>(std::marker::PhantomData<(K, V)>);
        impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for PairsVisitor<K, V> {
            type Value = Pairs<K, V>;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<K, V>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor(std::marker::PhantomData))
    }
}

/// Fields of details, by name.
fn find_field<E: Error>(name: &str, fields: usize) -> Result<usize, E> {
    detail_names(fields).iter().position(|known| *known == name).ok_or_else(|| E::custom("an unknown detail"))
}

/// Versions by detail, which stand in the order of the fields.
struct OlderVersions<const N: usize, V>(Vec<(u8, V)>);

impl<const N: usize, V> Default for OlderVersions<N, V> {
    fn default() -> Self {
        OlderVersions(Vec::new())
    }
}

impl<'de, const N: usize, V: Deserialize<'de>> Deserialize<'de> for OlderVersions<N, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs: Pairs<Cow<'de, str>, V> = Pairs::deserialize(deserializer)?;
        let mut older: Vec<(u8, V)> = Vec::with_capacity(pairs.0.len());
        for (name, version) in pairs.0 {
            let field = find_field::<D::Error>(&name, N)? as u8;
            if older.last().is_some_and(|(last, _)| *last >= field) {
                return Err(D::Error::custom("details in another order"));
            }
            older.push((field, version));
        }
        Ok(OlderVersions(older))
    }
}

/// The details of one owner.
struct Details<const N: usize>(Registers<N>);

impl<'de, const N: usize> Deserialize<'de> for Details<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs: Pairs<Cow<'de, str>, Value> = Pairs::deserialize(deserializer)?;
        let mut details = Registers::default();
        for (name, value) in pairs.0 {
            let field = find_field::<D::Error>(&name, N)?;
            let is_time = name.ends_with("Time");
            let value = match value {
                Value::Text(text) if is_time => parse_published(&text).map(Value::Time),
                value => Some(value),
            };
            if details.0[field].is_some() || value.is_none() {
                return Err(D::Error::custom("a detail twice, or no time"));
            }
            details.0[field] = value;
        }
        Ok(Details(details))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;
        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = Value;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a detail")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(share(text)))
            }

            fn visit_bool<E: Error>(self, flag: bool) -> Result<Value, E> {
                Ok(Value::Flag(flag))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
                Ok(Value::Integer(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
                i64::try_from(number).map(Value::Integer).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let (mut texts, mut transfers) = (Vec::new(), Vec::new());
                while let Some(element) = seq.next_element()? {
                    match element {
                        Element::Text(text) => texts.push(text),
                        Element::Transfer(transfer) => transfers.push(transfer.encode()),
                    }
                }
                match (texts.is_empty(), transfers.is_empty()) {
                    (_, true) => Ok(Value::Texts(texts.into())),
                    (true, false) => Ok(put_objects(&transfers)),
                    (false, false) => Err(A::Error::custom("texts and objects in one list")),
                }
            }
        }
        deserializer.deserialize_any(ValueVisitor)
    }
}

/// An element of a list that is a detail.
enum Element {
    Text(Text),
    Transfer(Transfer),
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;
        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a text or a transfer")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Element, E> {
                Ok(Element::Text(Text::from(text)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Element, A::Error> {
                PublishedTransfer::deserialize(MapAccessDeserializer::new(map))
                    .map(|known| Element::Transfer(known.into()))
            }
        }
        deserializer.deserialize_any(ElementVisitor)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PublishedTransfer<'a> {
    #[serde(borrow)]
    transfer_id: Name<'a>,
    #[serde(default, borrow)]
    state: Option<Name<'a>>,
    #[serde(default, borrow)]
    kind: Option<Name<'a>>,
    #[serde(default)]
    time: PublishedTime,
    #[serde(default, borrow)]
    initiator_user_id: Option<Name<'a>>,
    #[serde(default, borrow)]
    destination_user_id: Option<Name<'a>>,
}

impl From<PublishedTransfer<'_>> for Transfer {
    fn from(known: PublishedTransfer) -> Self {
        let text = |name: Option<Name>| name.map(|name| name.text());
        Transfer {
            transfer_id: known.transfer_id.text(),
            state: text(known.state),
            kind: text(known.kind),
            time: known.time.0,
            initiator_user_id: text(known.initiator_user_id),
            destination_user_id: text(known.destination_user_id),
        }
    }
}

impl Transfer {
    /// The published bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(b"{\"transferId\":");
        put_text(&mut out, &self.transfer_id);
        put_optional(&mut out, b",\"state\":", &self.state);
        put_optional(&mut out, b",\"kind\":", &self.kind);
        if self.time != NO_TIME {
            out.extend_from_slice(b",\"time\":");
            put_time(&mut out, self.time);
        }
        put_optional(&mut out, b",\"initiatorUserId\":", &self.initiator_user_id);
        put_optional(&mut out, b",\"destinationUserId\":", &self.destination_user_id);
        out.push(b'}');
        out
    }
}

/// A list of at least one published object.
pub fn put_objects(objects: &[Vec<u8>]) -> Value {
    let mut out = vec![b'['];
    put_separated(&mut out, objects, |out, object| out.extend_from_slice(object));
    out.push(b']');
    Value::Objects(Text::from(String::from_utf8(out).expect("it was written as text")))
}
