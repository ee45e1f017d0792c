//! The native engine: the rules of `consumer/core` for what is ordinary. It declines everything else, and Python does it.
//!
//! Each module says which Python module it follows. What it accepts comes to the same bytes as there; where it cannot be
//! sure it declines, for that costs time only.

mod conversation;
mod decline;
mod engine;
mod envelope;
mod event_time;
mod fetched;
mod framing;
mod json;
mod lifecycle;
mod matching;
mod normalize;
mod outputs;
mod parser;
mod participant;
mod refold;
mod registers;
mod state;
mod state_codec;
mod stats;
mod timeline;
mod timestamps;
mod topics;
mod transitions;
mod updates;
mod wire;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<engine::Engine>()?;
    module.add_class::<fetched::FetchedRecords>()?;
    module.add_class::<outputs::Records>()?;
    module.add("PanicException", module.py().get_type::<pyo3::panic::PanicException>())
}
