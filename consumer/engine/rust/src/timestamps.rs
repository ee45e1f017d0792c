//! Times: epoch milliseconds in memory, text of a fixed width where they are published. As `core/timestamps.py`.

/// Epoch milliseconds. As published texts sort like their times, numbers are compared where Python compares texts.
pub type Time = i64;

/// No time: the empty text in Python, which is less than any other.
pub const NO_TIME: Time = 0;
pub const EARLIEST_MS: Time = 1_262_304_000_000;
pub const LATEST_MS: Time = 253_402_300_799_999;
pub const DAY_MS: Time = 86_400_000;
pub const PUBLISHED_LENGTH: usize = 24;
const TEXT_LENGTH_MAX: usize = 40;

/// Epoch milliseconds of an ISO-8601 text; fractions are cut. None where Python finds none, or where hours may differ
/// between versions of Python.
pub fn parse(text: &str) -> Option<Time> {
    let bytes = text.as_bytes();
    if bytes.len() > TEXT_LENGTH_MAX || bytes.len() < 19 {
        return None;
    }
    let digits = |from: usize, to: usize| -> Option<i64> {
        let mut number = 0;
        for byte in &bytes[from..to] {
            if !byte.is_ascii_digit() {
                return None;
            }
            number = number * 10 + i64::from(byte - b'0');
        }
        Some(number)
    };
    let has = |at: usize, byte: u8| bytes[at] == byte;
    if !(has(4, b'-') && has(7, b'-') && (has(10, b'T') || has(10, b' ')) && has(13, b':') && has(16, b':')) {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    if year < 1 || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut at = 19;
    let mut fraction = 0;
    if at < bytes.len() && bytes[at] == b'.' {
        let first = at + 1;
        at = first;
        while at < bytes.len() && bytes[at].is_ascii_digit() {
            if at - first < 3 {
                fraction += i64::from(bytes[at] - b'0') * [100, 10, 1][at - first];
            }
            at += 1;
        }
        if at == first || at - first > 9 {
            return None;
        }
    }
    let offset_minutes = match &bytes[at..] {
        [] | [b'Z'] => 0,
        [sign @ (b'+' | b'-'), rest @ ..] => {
            let (hours, minutes) = match rest.len() {
                4 => (digits(at + 1, at + 3)?, digits(at + 3, at + 5)?),
                5 if rest[2] == b':' => (digits(at + 1, at + 3)?, digits(at + 4, at + 6)?),
                _ => return None,
            };
            if hours > 23 || minutes > 59 {
                return None;
            }
            let minutes = hours * 60 + minutes;
            if *sign == b'+' { -minutes } else { minutes }
        }
        _ => return None,
    };
    let days = days_from_civil(year, month, day);
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second + offset_minutes * 60;
    Some(seconds * 1_000 + fraction)
}

/// A plausible time of the wire; None where it is implausible.
pub fn plausible(time: Time, latest: Time) -> Option<Time> {
    (EARLIEST_MS <= time && time <= latest).then_some(time)
}

/// The time of a published text; None unless it is exactly what is published for that time.
pub fn parse_published(text: &str) -> Option<Time> {
    let bytes = text.as_bytes();
    if bytes.len() != PUBLISHED_LENGTH || bytes[10] != b'T' || bytes[19] != b'.' || bytes[23] != b'Z' {
        return None;
    }
    plausible(parse(text)?, LATEST_MS)
}

/// The published form of a plausible time.
pub fn to_text(time: Time) -> [u8; PUBLISHED_LENGTH] {
    let days = time.div_euclid(DAY_MS);
    let rest = time.rem_euclid(DAY_MS) as u32;
    let (year, month, day) = civil_from_days(days);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let mut put = |at: usize, number: u32| {
        text[at] = b'0' + (number / 10) as u8;
        text[at + 1] = b'0' + (number % 10) as u8;
    };
    put(0, year as u32 / 100);
    put(2, year as u32 % 100);
    put(5, month as u32);
    put(8, day as u32);
    put(11, rest / 3_600_000);
    put(14, rest / 60_000 % 60);
    put(17, rest / 1_000 % 60);
    put(20, rest / 10 % 100);
    text[22] = b'0' + (rest % 10) as u8;
    text
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

// Days since 1970-01-01 in the proleptic Gregorian calendar, by eras of 400 years that begin in March.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_text_and_time_are_inverse() {
        for time in [EARLIEST_MS, 1_582_934_400_123, 1_709_164_799_999, 4_102_444_800_000, LATEST_MS] {
            let text = String::from_utf8(to_text(time).to_vec()).unwrap();
            assert_eq!(parse_published(&text), Some(time), "{text}");
        }
    }

    #[test]
    fn offsets_and_fractions_are_read() {
        assert_eq!(parse("2026-01-01T10:05:01.1239+02:00"), parse("2026-01-01T08:05:01.123Z"));
        assert_eq!(parse("2026-01-01 10:05:01"), parse("2026-01-01T10:05:01.000Z"));
        assert_eq!(parse("2026-02-30T10:05:01Z"), None);
        assert_eq!(parse("2026-01-01T24:00:00Z"), None);
    }
}
