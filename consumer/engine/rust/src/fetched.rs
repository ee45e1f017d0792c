//! The records of fetched batches as bytes: no Python object is made for those that are processed here.
//! `kafka/patches/whole_batches.py` hands the batches over.

use std::ops::Range;

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString, PyTuple, PyType};

/// Of one batch. Larger ones are read the plain way, which makes no more records at a time than a lane takes.
const RECORDS_MAX: usize = 32_768;
const SNAPSHOT_TIME_HEADER: &[u8] = b"snapshot-time";

static RECORD: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// A record in the records section of its batch.
struct Place {
    batch: usize,
    offset: i64,
    timestamp_ms: i64,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    /// From their first byte to the end of the record.
    headers: Range<usize>,
    header_count: i64,
    has_snapshot_time: bool,
}

/// A record that is borrowed from its batch.
pub struct Fetched<'a> {
    pub offset: i64,
    pub timestamp_ms: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub has_snapshot_time: bool,
}

/// Records of one partition in order of offset. In Python a sequence of `Record`s, which are made when they are asked for.
#[pyclass(module = "consumer.engine._native")]
pub struct FetchedRecords {
    topic: Py<PyString>,
    partition: i64,
    /// Their records sections, decompressed.
    batches: Vec<Py<PyBytes>>,
    places: Vec<Place>,
    /// The record that was asked for last, by index: it is the same object as long as no other is asked for.
    asked: Option<(usize, Py<PyAny>)>,
}

#[pymethods]
impl FetchedRecords {
    #[new]
    fn new(topic: Py<PyString>, partition: i64) -> Self {
        FetchedRecords { topic, partition, batches: Vec::new(), places: Vec::new(), asked: None }
    }

    /// Append the records of a batch that are not before `from_offset`. `append_ms` is the timestamp of all of them where
    /// the broker sets it. Returns false, and appends nothing, if the batch is out of the ordinary.
    fn add(
        &mut self,
        content: Bound<'_, PyBytes>,
        count: i64,
        base_offset: i64,
        first_ms: i64,
        append_ms: Option<i64>,
        from_offset: i64,
    ) -> bool {
        let mut reader = Reader { content: content.as_bytes(), position: 0 };
        let Some(places) = reader.read_batch(count, self.batches.len(), base_offset, first_ms) else { return false };
        let mut next_offset = from_offset;
        for place in places {
            if place.offset >= next_offset {
                next_offset = place.offset + 1;
                self.places.push(Place { timestamp_ms: append_ms.unwrap_or(place.timestamp_ms), ..place });
            }
        }
        self.batches.push(content.unbind());
        true
    }

    /// Take the first records, `count` at most.
    fn take(&mut self, py: Python, count: usize) -> FetchedRecords {
        self.asked = None;
        let mut left = self.places.split_off(count.min(self.places.len()));
        let first = left.first().map_or(self.batches.len(), |place| place.batch);
        left.iter_mut().for_each(|place| place.batch -= first);
        let batches = self.batches[first..].iter().map(|content| content.clone_ref(py)).collect();
        FetchedRecords {
            topic: self.topic.clone_ref(py),
            partition: self.partition,
            batches: std::mem::replace(&mut self.batches, batches),
            places: std::mem::replace(&mut self.places, left),
            asked: None,
        }
    }

    /// The offset after the last record; None without records.
    #[getter]
    fn next_offset(&self) -> Option<i64> {
        self.places.last().map(|place| place.offset + 1)
    }

    fn __len__(&self) -> usize {
        self.places.len()
    }

    fn __getitem__(&mut self, py: Python, index: isize) -> PyResult<Py<PyAny>> {
        let index = if index < 0 { index + self.places.len() as isize } else { index };
        let Some(index) = usize::try_from(index).ok().filter(|index| *index < self.places.len()) else {
            return Err(PyIndexError::new_err("no such record"));
        };
        if let Some((asked, record)) = &self.asked
            && *asked == index
        {
            return Ok(record.clone_ref(py));
        }
        let record = self.make(py, &self.places[index])?;
        self.asked = Some((index, record.clone_ref(py)));
        Ok(record)
    }
}

impl FetchedRecords {
    fn make(&self, py: Python, place: &Place) -> PyResult<Py<PyAny>> {
        let content = self.batches[place.batch].as_bytes(py);
        let bytes = |range: &Option<Range<usize>>| range.clone().map(|range| PyBytes::new(py, &content[range]));
        let mut reader = Reader { content, position: place.headers.start };
        let mut headers = Vec::new();
        for _ in 0..place.header_count {
            let name = reader.read_field().flatten().and_then(|range| std::str::from_utf8(&content[range]).ok());
            headers.push((name.expect("it was read before"), bytes(&reader.read_field().expect("as the name"))));
        }
        let record = RECORD.import(py, "consumer.core.record", "Record")?.call1((
            &self.topic,
            self.partition,
            place.offset,
            place.timestamp_ms,
            bytes(&place.key),
            bytes(&place.value),
            PyTuple::new(py, headers)?,
        ))?;
        Ok(record.unbind())
    }

    /// Topic and partition.
    pub fn source<'a>(&'a self, py: Python<'a>) -> (&'a Bound<'a, PyString>, i64) {
        (self.topic.bind(py), self.partition)
    }

    pub fn get<'a>(&'a self, py: Python<'a>, index: usize) -> Fetched<'a> {
        let place = &self.places[index];
        let content = self.batches[place.batch].as_bytes(py);
        Fetched {
            offset: place.offset,
            timestamp_ms: place.timestamp_ms,
            key: place.key.clone().map(|range| &content[range]),
            value: place.value.clone().map(|range| &content[range]),
            has_snapshot_time: place.has_snapshot_time,
        }
    }
}

/// Reads a records section as aiokafka does, or returns None.
struct Reader<'a> {
    content: &'a [u8],
    position: usize,
}

impl Reader<'_> {
    fn read_batch(&mut self, count: i64, batch: usize, base_offset: i64, first_ms: i64) -> Option<Vec<Place>> {
        let count = usize::try_from(count).ok().filter(|count| *count <= RECORDS_MAX)?;
        let places = (0..count).map(|_| self.read_record(batch, base_offset, first_ms)).collect::<Option<Vec<_>>>()?;
        (self.position == self.content.len()).then_some(places)
    }

    fn read_record(&mut self, batch: usize, base_offset: i64, first_ms: i64) -> Option<Place> {
        let length = usize::try_from(self.read_varint()?).ok()?;
        let end = self.position.checked_add(length)?;
        if *self.content.get(self.position)? != 0 {
            return None; // attributes that nothing has a meaning for yet
        }
        self.position += 1;
        let timestamp_ms = first_ms.checked_add(self.read_varint()?)?;
        let offset = base_offset.checked_add(self.read_varint()?)?;
        let (key, value) = (self.read_field()?, self.read_field()?);
        let header_count = self.read_varint().filter(|count| *count >= 0)?;
        let begin = self.position;
        let mut has_snapshot_time = false;
        for _ in 0..header_count {
            let name = &self.content[self.read_field()??];
            std::str::from_utf8(name).ok()?;
            has_snapshot_time |= name == SNAPSHOT_TIME_HEADER;
            self.read_field()?;
        }
        (self.position == end).then_some(Place {
            batch,
            offset,
            timestamp_ms,
            key,
            value,
            headers: begin..end,
            header_count,
            has_snapshot_time,
        })
    }

    /// Bytes after their length, which is -1 for null.
    fn read_field(&mut self) -> Option<Option<Range<usize>>> {
        let length = self.read_varint()?;
        if length == -1 {
            return Some(None);
        }
        let begin = self.position;
        let end = begin.checked_add(usize::try_from(length).ok()?)?;
        self.position = end;
        (end <= self.content.len()).then_some(Some(begin..end))
    }

    /// A number of up to nine bytes.
    fn read_varint(&mut self) -> Option<i64> {
        let mut value = 0_u64;
        for shift in (0..63).step_by(7) {
            let byte = *self.content.get(self.position)?;
            self.position += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        None
    }
}
