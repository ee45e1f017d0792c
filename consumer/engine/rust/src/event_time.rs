//! When a communication entered its states, by the times that one record shows. As `core/event_time.py`.

use crate::decline::Decline;
use crate::lifecycle::{ALERTING, BEFORE, CONNECTED, DISCONNECTED, LIVE, PARKED, TERMINATED, Text, share};
use crate::state::{OF_PROVIDER, OF_SNAPSHOT, OF_STATE, Observation, TimeClass};
use crate::timestamps::{NO_TIME, Time, parse, plausible};
use crate::wire::WireTime;

const CONTROL_CHANGE_MS: i64 = 2_000;

/// A plausible time; declined where it is not, for Python counts that as an anomaly.
pub fn read(wire: WireTime, latest: Time) -> Result<Time, Decline> {
    let time = match wire {
        WireTime::Absent | WireTime::Text("") => return Ok(NO_TIME),
        WireTime::Text(text) => parse(text),
        WireTime::Milliseconds(number) => Some(number),
    };
    time.and_then(|time| plausible(time, latest)).ok_or(Decline::Time)
}

/// The plausible times of one communication.
pub struct EventTimes {
    pub provider: Time,
    pub alerting: Time,
    pub connected: Time,
    pub disconnected: Time,
    pub parked: Time,
}

/// What a communication in `state` says of its timeline: that state first, then those that its times imply.
pub fn observe(state: &Text, rank: u8, cycle: Time, times: &EventTimes) -> Vec<Observation> {
    let (time, time_class) = date_entry(state, rank, times);
    let mut observations = vec![Observation { state: state.clone(), rank, time, time_class, cycle }];
    let mut imply = |state: &str, rank, time, cycle| {
        observations.push(Observation { state: share(state), rank, time, time_class: OF_STATE, cycle });
    };
    if times.alerting != NO_TIME && &**state != ALERTING {
        imply(ALERTING, BEFORE, times.alerting, NO_TIME);
    }
    if rank >= LIVE {
        if times.connected != NO_TIME && (cycle != NO_TIME || &**state != CONNECTED) {
            imply(CONNECTED, LIVE, times.connected, NO_TIME);
        }
        if times.parked != NO_TIME {
            imply(PARKED, LIVE, times.parked, times.parked);
        }
        if rank == TERMINATED && times.disconnected != NO_TIME {
            imply("disconnected", DISCONNECTED, times.disconnected, NO_TIME);
        }
    }
    observations
}

/// When `state` was entered: the provider's time, the state's own, or none for the snapshot's, an upper bound.
fn date_entry(state: &str, rank: u8, times: &EventTimes) -> (Time, TimeClass) {
    let own = if rank >= DISCONNECTED {
        times.disconnected
    } else if state == PARKED {
        times.parked
    } else if state == CONNECTED && times.parked <= times.connected {
        times.connected
    } else if state == ALERTING {
        times.alerting
    } else {
        NO_TIME
    };
    let is_control_change = own != NO_TIME && times.provider - own > CONTROL_CHANGE_MS;
    if times.provider != NO_TIME && !is_control_change {
        return (times.provider, OF_PROVIDER);
    }
    if own == NO_TIME { (NO_TIME, OF_SNAPSHOT) } else { (own, OF_STATE) }
}
