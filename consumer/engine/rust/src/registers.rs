//! Last-writer-wins registers: each detail keeps its newest value. As `core/lww.py`.

use std::sync::Arc;

use crate::json;
use crate::lifecycle::Text;
use crate::timestamps::Time;

/// The value of one detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(Text),
    Time(Time),
    Flag(bool),
    Integer(i64),
    Texts(Arc<[Text]>),
    /// At least one object, in the published bytes of their list.
    Objects(Text),
}

impl Value {
    pub fn as_text(&self) -> Option<&Text> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Value::Text(text) => json::put_text(out, text),
            Value::Time(time) => json::put_time(out, *time),
            Value::Flag(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
            Value::Integer(number) => json::put_integer(out, *number),
            Value::Texts(texts) => json::put_texts(out, texts),
            Value::Objects(published) => out.extend_from_slice(published.as_bytes()),
        }
    }
}

/// The details of one owner, by the index of their field; None is a detail that no record showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers<const N: usize>(pub [Option<Value>; N]);

impl<const N: usize> Default for Registers<N> {
    fn default() -> Self {
        Registers([const { None }; N])
    }
}

impl<const N: usize> Registers<N> {
    pub fn text(&self, field: usize) -> Option<&Text> {
        self.0[field].as_ref().and_then(Value::as_text)
    }

    pub fn set_text(&mut self, field: usize, text: Option<Text>) {
        self.0[field] = text.map(Value::Text);
    }

    /// Set a list of texts, sorted and each once.
    pub fn set_texts(&mut self, field: usize, mut texts: Vec<Text>) {
        texts.sort_unstable();
        texts.dedup();
        self.0[field] = Some(Value::Texts(texts.into()));
    }

    pub fn set_flag(&mut self, field: usize, flag: Option<bool>) {
        self.0[field] = flag.map(Value::Flag);
    }
}

/// Versions of the details that the newest update left out, by field, in the order of fields.
pub type Older<V> = Vec<(u8, V)>;

/// Details with the version of their owner, and the older versions.
pub type Register<'a, const N: usize, V> = (&'a Arc<Registers<N>>, V, &'a [(u8, V)]);

fn version_of<V: Copy>(field: usize, version: V, older: &[(u8, V)]) -> V {
    older.iter().find(|(index, _)| usize::from(*index) == field).map_or(version, |(_, older)| *older)
}

/// Merge an update at `version`: details, version and older versions afterwards; None if nothing changed.
pub fn merge<const N: usize, V: Copy + Ord>(
    known: &Arc<Registers<N>>,
    known_version: V,
    older: &Older<V>,
    update: &Arc<Registers<N>>,
    version: V,
) -> Option<(Arc<Registers<N>>, V, Older<V>)> {
    if update == known {
        if version > known_version {
            return Some((known.clone(), version, Older::new()));
        }
        if older.is_empty() {
            return None;
        }
    } else if version > known_version && covers(update, known) {
        return Some((update.clone(), version, Older::new()));
    }
    merge_fields(known, known_version, older, update, version)
}

/// The newest value of each detail over several owners.
pub fn combine<const N: usize, V: Copy + Ord>(registers: &[Register<N, V>]) -> Arc<Registers<N>> {
    let (first, others) = registers.split_first().expect("at least one owner");
    let mut combined = first.0.clone();
    for field in 0..N {
        let mut newest_version = version_of(field, first.1, first.2);
        for (details, version, older) in others {
            let Some(value) = &details.0[field] else { continue };
            let value_version = version_of(field, *version, older);
            let is_newer = match &combined.0[field] {
                None => true,
                Some(newest) => wins(value, value_version, newest, newest_version),
            };
            if is_newer {
                Arc::make_mut(&mut combined).0[field] = Some(value.clone());
                newest_version = value_version;
            }
        }
    }
    combined
}

fn covers<const N: usize>(update: &Registers<N>, known: &Registers<N>) -> bool {
    update.0.iter().zip(&known.0).all(|(new, old)| new.is_some() || old.is_none())
}

fn merge_fields<const N: usize, V: Copy + Ord>(
    known: &Arc<Registers<N>>,
    known_version: V,
    older: &Older<V>,
    update: &Arc<Registers<N>>,
    version: V,
) -> Option<(Arc<Registers<N>>, V, Older<V>)> {
    let newest = version.max(known_version);
    let mut merged = known.clone();
    let mut has_news = false;
    let mut still_older = Older::new();
    for field in 0..N {
        let (new, old) = (&update.0[field], &known.0[field]);
        if new.is_none() && old.is_none() {
            continue;
        }
        let mut value_version = version_of(field, known_version, older);
        if let Some(value) = new
            && old.as_ref().is_none_or(|known| wins(value, version, known, value_version))
        {
            if new != old {
                Arc::make_mut(&mut merged).0[field] = Some(value.clone());
                has_news = true;
            }
            value_version = version;
        }
        if value_version != newest {
            still_older.push((field as u8, value_version));
        }
    }
    if !has_news && newest == known_version && still_older == *older {
        return None;
    }
    Some((merged, newest, still_older))
}

fn wins<V: Copy + Ord>(new: &Value, version: V, old: &Value, old_version: V) -> bool {
    if version != old_version {
        return version > old_version;
    }
    if new == old {
        return false;
    }
    let (mut new_bytes, mut old_bytes) = (Vec::new(), Vec::new());
    new.encode(&mut new_bytes);
    old.encode(&mut old_bytes);
    new_bytes > old_bytes
}
