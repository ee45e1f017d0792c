//! Parse the JSON of a value, strictly and in one pass: what is not JSON is declined, and so is a name that is escaped.
//!
//! What is not read is skipped as fast as it can be checked. How deep a value nests was checked before.

use std::borrow::Cow;

use crate::decline::Decline;

/// A value as it stands in the JSON.
#[derive(Clone, Copy)]
pub struct Raw<'a>(pub &'a str);

/// What is read of one JSON value; another type is declined.
pub trait Read<'a>: Sized {
    fn read(parser: &mut Parser<'a>) -> Result<Self, Decline>;
}

/// A member of an object, which may be absent or null. One that stands twice is declined: Python takes the last.
pub trait Member<'a> {
    fn read_member(&mut self, parser: &mut Parser<'a>) -> Result<(), Decline>;
}

impl<'a, T: Read<'a>> Member<'a> for Option<T> {
    fn read_member(&mut self, parser: &mut Parser<'a>) -> Result<(), Decline> {
        if self.is_some() {
            return Err(Decline::Json);
        }
        *self = Read::read(parser)?;
        Ok(())
    }
}

impl<'a, T: Read<'a>> Read<'a> for Option<T> {
    fn read(parser: &mut Parser<'a>) -> Result<Self, Decline> {
        if parser.peek() == Some(b'n') { parser.skip_value().map(|()| None) } else { T::read(parser).map(Some) }
    }
}

impl<'a, T: Read<'a>> Read<'a> for Vec<T> {
    fn read(parser: &mut Parser<'a>) -> Result<Self, Decline> {
        let mut elements = Vec::with_capacity(1);
        parser.read_elements(|parser| T::read(parser).map(|element| elements.push(element)))?;
        Ok(elements)
    }
}

impl<'a> Read<'a> for Raw<'a> {
    fn read(parser: &mut Parser<'a>) -> Result<Self, Decline> {
        parser.read_raw(Parser::skip_value)
    }
}

impl Read<'_> for bool {
    fn read(parser: &mut Parser) -> Result<Self, Decline> {
        match parser.peek() {
            Some(b't') => parser.skip_literal("true").map(|()| true),
            Some(b'f') => parser.skip_literal("false").map(|()| false),
            _ => Err(Decline::Json),
        }
    }
}

impl Read<'_> for i64 {
    fn read(parser: &mut Parser) -> Result<Self, Decline> {
        parser.read_integer()
    }
}

/// A position in a JSON text.
#[derive(Clone, Copy)]
pub struct Parser<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Parser<'a> {
    pub fn new(text: &'a str) -> Self {
        Parser { text, position: 0 }
    }

    /// Nothing but space may follow.
    pub fn finish(&mut self) -> Result<(), Decline> {
        if self.peek().is_none() { Ok(()) } else { Err(Decline::Json) }
    }

    /// The next byte that is no space.
    pub fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.as_bytes().get(self.position) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.position += 1,
                byte => return byte.copied(),
            }
        }
    }

    /// What follows the position.
    pub fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.position..]
    }

    /// Skip what is known to be whole values.
    pub fn advance(&mut self, length: usize) {
        self.position += length;
    }

    /// What `skip` moves over, without the space before it.
    pub fn read_raw(&mut self, skip: impl FnOnce(&mut Self) -> Result<(), Decline>) -> Result<Raw<'a>, Decline> {
        self.peek();
        let begin = self.position;
        skip(self)?;
        Ok(Raw(&self.text[begin..self.position]))
    }

    /// Call with each member's name, at its value, which has to be read or skipped.
    pub fn read_members(
        &mut self,
        mut read: impl FnMut(&mut Self, &'a str) -> Result<(), Decline>,
    ) -> Result<(), Decline> {
        self.expect(b'{')?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.expect(b'"')?;
            let (begin, is_escaped) = (self.position, self.skip_text()?);
            if is_escaped {
                return Err(Decline::Json);
            }
            let name = &self.text[begin..self.position - 1];
            self.expect(b':')?;
            read(self, name)?;
            if self.take(b'}') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    /// Call at each element, which has to be read or skipped.
    pub fn read_elements(&mut self, mut read: impl FnMut(&mut Self) -> Result<(), Decline>) -> Result<(), Decline> {
        self.expect(b'[')?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            read(self)?;
            if self.take(b']') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    pub fn skip_value(&mut self) -> Result<(), Decline> {
        match self.peek() {
            Some(b'"') => {
                self.position += 1;
                self.skip_text()?;
                Ok(())
            }
            Some(b'{') => self.skip_object(),
            Some(b'[') => self.read_elements(Self::skip_value),
            Some(b't') => self.skip_literal("true"),
            Some(b'f') => self.skip_literal("false"),
            Some(b'n') => self.skip_literal("null"),
            _ => self.skip_number(),
        }
    }

    fn skip_object(&mut self) -> Result<(), Decline> {
        self.position += 1;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.expect(b'"')?;
            self.skip_text()?;
            self.expect(b':')?;
            self.skip_value()?;
            if self.take(b'}') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    /// A text, borrowed where it is not escaped.
    pub fn read_text(&mut self) -> Result<Cow<'a, str>, Decline> {
        self.expect(b'"')?;
        let begin = self.position;
        let is_escaped = self.skip_text()?;
        if is_escaped {
            let text = serde_json::from_str(&self.text[begin - 1..self.position])?;
            return Ok(Cow::Owned(text));
        }
        Ok(Cow::Borrowed(&self.text[begin..self.position - 1]))
    }

    /// Skip a text behind its first quote; returns whether there is an escape in it.
    fn skip_text(&mut self) -> Result<bool, Decline> {
        let bytes = self.text.as_bytes();
        let mut is_escaped = false;
        loop {
            self.position = find_mark(bytes, self.position).ok_or(Decline::Json)?;
            match bytes[self.position] {
                b'"' => {
                    self.position += 1;
                    return Ok(is_escaped);
                }
                b'\\' => self.skip_escape()?,
                _ => return Err(Decline::Json),
            }
            is_escaped = true;
        }
    }

    fn skip_escape(&mut self) -> Result<(), Decline> {
        let length = match self.rest() {
            [_, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [_, b'u', digits @ ..] if digits.len() >= 4 && digits[..4].iter().all(u8::is_ascii_hexdigit) => 6,
            _ => return Err(Decline::Json),
        };
        self.position += length;
        Ok(())
    }

    fn skip_literal(&mut self, literal: &str) -> Result<(), Decline> {
        if !self.rest().starts_with(literal.as_bytes()) {
            return Err(Decline::Json);
        }
        self.position += literal.len();
        Ok(())
    }

    fn skip_number(&mut self) -> Result<(), Decline> {
        self.skip_byte(b'-');
        if !self.skip_byte(b'0') {
            self.skip_digits()?;
        }
        if self.skip_byte(b'.') {
            self.skip_digits()?;
        }
        if self.skip_byte(b'e') || self.skip_byte(b'E') {
            let _is_signed = self.skip_byte(b'+') || self.skip_byte(b'-');
            self.skip_digits()?;
        }
        Ok(())
    }

    /// Skip at least one digit.
    fn skip_digits(&mut self) -> Result<(), Decline> {
        let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.position += digits;
        if digits > 0 { Ok(()) } else { Err(Decline::Json) }
    }

    /// Skip this byte if it is the next one.
    fn skip_byte(&mut self, byte: u8) -> bool {
        let is_next = self.text.as_bytes().get(self.position) == Some(&byte);
        self.position += usize::from(is_next);
        is_next
    }

    /// A number without fraction and exponent.
    pub fn read_integer(&mut self) -> Result<i64, Decline> {
        let Raw(number) = self.read_raw(Self::skip_number)?;
        if number == "-0" { Err(Decline::Json) } else { number.parse().map_err(|_| Decline::Json) }
    }

    pub fn expect(&mut self, byte: u8) -> Result<(), Decline> {
        if self.take(byte) { Ok(()) } else { Err(Decline::Json) }
    }

    /// Skip the name of a member and its colon, if that is the next one.
    pub fn take_name(&mut self, name: &str) -> bool {
        let quoted = self.take(b'"').then(|| self.rest().strip_prefix(name.as_bytes())).flatten();
        let is_next = quoted.is_some_and(|rest| rest.first() == Some(&b'"'));
        if is_next {
            self.position += name.len() + 1;
        }
        is_next && self.take(b':')
    }

    /// Skip this byte, and space before it, if it is the next one.
    pub fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.position += usize::from(is_next);
        is_next
    }
}

/// The index of the first quote, backslash or control character from `index` on.
pub fn find_mark(bytes: &[u8], mut index: usize) -> Option<usize> {
    // Eight bytes at a time: in a word the lowest byte that borrows below is a mark, for higher ones that is not sure.
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    while let Some(chunk) = bytes.get(index..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let quotes = (word ^ (ONES * u64::from(b'"'))).wrapping_sub(ONES);
        let backslashes = (word ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
        let controls = word.wrapping_sub(ONES * 0x20);
        let marks = (quotes | backslashes | controls) & !word & (ONES << 7);
        if marks != 0 {
            return Some(index + marks.trailing_zeros() as usize / 8);
        }
        index += 8;
    }
    let is_mark = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    bytes.get(index..)?.iter().position(is_mark).map(|found| index + found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Read a text that holds one value.
    fn read_all<'a, T: Read<'a>>(text: &'a str) -> Result<T, Decline> {
        let mut parser = Parser::new(text);
        let value = T::read(&mut parser)?;
        parser.finish()?;
        Ok(value)
    }

    fn is_json(text: &str) -> bool {
        read_all::<Raw>(text).is_ok()
    }

    #[test]
    fn json_is_skipped_as_serde_json_reads_it() {
        let values = [
            "{}",
            "[]",
            "[1]",
            "[1,]",
            "[,1]",
            "{\"a\":1}",
            "{\"a\":1,}",
            "{\"a\"}",
            "{a:1}",
            "{\"a\":1 \"b\":2}",
            "tru",
            "true",
            "false",
            "null",
            "nul",
            "0",
            "-0",
            "-",
            "01",
            "1.",
            "1.5",
            ".5",
            "1e5",
            "1E+5",
            "1e",
            "1e-",
            "+1",
            "\"",
            "\"a\"",
            "\"\\n\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12aF\"",
            "\"\\u12ag\"",
            "\"a\tb\"",
            "\"\u{7f}é\"",
            " [ 1 , 2 ] ",
            "1 2",
            "",
            " ",
            "\"eight ch\"",
            "\"eight ch\\",
            "{\"a\\\"b\":[{}]}",
            "[[1],[\"2\",{\"3\":[]}]]",
            "\u{b}1",
        ];
        for value in values {
            assert_eq!(is_json(value), serde_json::from_str::<serde::de::IgnoredAny>(value).is_ok(), "{value}");
        }
    }

    #[test]
    fn marks_are_found_at_every_place() {
        let plain = "é ~!#[]^\u{7f}\u{80}ÿ abcdefghijklmnop".as_bytes();
        for mark in ["\"", "\\", "\0", "\u{1f}", "\n"] {
            for place in 0..plain.len() {
                let text = [&plain[..place], mark.as_bytes(), plain, mark.as_bytes()].concat();
                assert_eq!(find_mark(&text, 0), Some(place));
                assert_eq!(find_mark(&text, place + 1), Some(text.len() - 1));
            }
        }
        assert_eq!(find_mark(plain, 0), None);
    }

    #[test]
    fn integers_are_read_and_other_numbers_declined() {
        assert_eq!(read_all::<i64>(" -12 "), Ok(-12));
        for number in ["12.0", "1e3", "-0", "9223372036854775808", "\"1\"", "01"] {
            assert_eq!(read_all::<i64>(number), Err(Decline::Json), "{number}");
        }
    }

    #[test]
    fn texts_are_unescaped_and_escaped_names_declined() {
        assert_eq!(Parser::new(r#""a\"\u00e9""#).read_text(), Ok(Cow::from("a\"é")));
        let mut parser = Parser::new(r#"{"\u0069d":1}"#);
        assert_eq!(parser.read_members(|parser, _| parser.skip_value()), Err(Decline::Json));
    }
}
