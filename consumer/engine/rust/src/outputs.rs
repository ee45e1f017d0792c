//! What is staged to be published, and the form in which a record batch of Kafka holds it.

use std::sync::Arc;

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::lifecycle::Text;

/// The conversation of a transition, and its published bytes.
pub type Transition = (Text, Vec<u8>);

/// Records of one topic, in order.
#[pyclass(frozen, module = "consumer.engine._native")]
pub struct Records(Listed);

enum Listed {
    /// Pairs of a conversation and its state, None for a tombstone.
    States(Py<PyList>),
    Transitions(Arc<Vec<Transition>>),
}

impl Records {
    pub fn of_states(states: Py<PyList>) -> Self {
        Records(Listed::States(states))
    }

    pub fn of_transitions(transitions: Arc<Vec<Transition>>) -> Self {
        Records(Listed::Transitions(transitions))
    }

    /// Call with key and value of each record from `first` on, until that returns false.
    fn visit(&self, py: Python, first: usize, mut add: impl FnMut(&[u8], Option<&[u8]>) -> bool) -> PyResult<()> {
        match &self.0 {
            Listed::States(states) => {
                let states = states.bind(py);
                for index in first..states.len() {
                    let (key, value): (Bound<PyString>, Option<Bound<PyBytes>>) = states.get_item(index)?.extract()?;
                    if !add(key.to_str()?.as_bytes(), value.as_ref().map(|value| value.as_bytes())) {
                        break;
                    }
                }
            }
            Listed::Transitions(transitions) => {
                let mut rest = transitions.iter().skip(first);
                while rest.next().is_some_and(|(key, value)| add(key.as_bytes(), Some(value))) {}
            }
        }
        Ok(())
    }
}

#[pymethods]
impl Records {
    fn __len__(&self, py: Python) -> usize {
        match &self.0 {
            Listed::States(states) => states.bind(py).len(),
            Listed::Transitions(transitions) => transitions.len(),
        }
    }

    /// Key and value of a record.
    fn get<'py>(&self, py: Python<'py>, index: usize) -> PyResult<(Bound<'py, PyBytes>, Option<Bound<'py, PyBytes>>)> {
        let mut found = None;
        self.visit(py, index, |key, value| {
            found = Some((PyBytes::new(py, key), value.map(|value| PyBytes::new(py, value))));
            false
        })?;
        found.ok_or_else(|| PyIndexError::new_err(index))
    }

    /// Pack the records from `first` on, at least one, into at most `bytes_max` bytes; returns how many, and the bytes.
    fn pack<'py>(&self, py: Python<'py>, first: usize, bytes_max: usize) -> PyResult<(usize, Bound<'py, PyBytes>)> {
        let mut packer = Packer { bytes_max, count: 0, content: Vec::new() };
        self.visit(py, first, |key, value| packer.add(key, value))?;
        Ok((packer.count, PyBytes::new(py, &packer.content)))
    }
}

/// The records of one batch: format 2, without headers, and with the batch's time.
struct Packer {
    bytes_max: usize,
    count: usize,
    content: Vec<u8>,
}

impl Packer {
    /// Add a record, unless it is not the first one and does not fit; returns whether it was added.
    fn add(&mut self, key: &[u8], value: Option<&[u8]>) -> bool {
        let offset = self.count as i64;
        let value_size = value.map_or(varint_size(NULL), field_size);
        // Attributes, the time since that of the batch and the number of headers take a byte each.
        let size = 3 + varint_size(offset) + field_size(key) + value_size;
        let total = self.content.len() + varint_size(size as i64) + size;
        if self.count > 0 && total > self.bytes_max {
            return false;
        }
        let content = &mut self.content;
        put_varint(content, size as i64);
        content.extend_from_slice(&[0, 0]);
        put_varint(content, offset);
        put_field(content, key);
        match value {
            Some(value) => put_field(content, value),
            None => put_varint(content, NULL),
        }
        content.push(0);
        self.count += 1;
        true
    }
}

/// The length of a field that is null.
const NULL: i64 = -1;

fn field_size(field: &[u8]) -> usize {
    varint_size(field.len() as i64) + field.len()
}

fn put_field(out: &mut Vec<u8>, field: &[u8]) {
    put_varint(out, field.len() as i64);
    out.extend_from_slice(field);
}

/// Signed numbers alternate with positive ones, so that small ones of either sign are short.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn varint_size(number: i64) -> usize {
    (64 - (zigzag(number) | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_varint(out: &mut Vec<u8>, number: i64) {
    let mut rest = zigzag(number);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
