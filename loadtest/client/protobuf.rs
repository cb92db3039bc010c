//! As much of the protocol buffers encoding as the messages here need.
//!
//! Source: the encoding page of the Protocol Buffers documentation. Groups are
//! not used by the protocol and are refused.

/// A message that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the server sent a message that is not valid protobuf")
    }
}

impl std::error::Error for Malformed {}

/// A field's value as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Integers, booleans, enums.
    Varint(u64),
    /// Strings, bytes, messages.
    Bytes(&'a [u8]),
    /// Floats and fixed integers: nothing here needs them.
    Fixed,
}

impl<'a> Value<'a> {
    /// The bytes, or nothing for any other type.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Value::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    /// The number, or 0 for any other type.
    pub fn number(self) -> u64 {
        match self {
            Value::Varint(number) => number,
            _ => 0,
        }
    }

    /// The text; what is not UTF-8 counts as malformed.
    pub fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()).map_err(|_| Malformed)
    }
}

/// The fields of a message, in the order in which they come.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u64, Value<'a>), Malformed> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed),
        };
        Ok((tag >> 3, value))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for place in 0..10 {
            let (&byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }
}

/// A message that is being written.
#[derive(Debug, Default)]
pub struct Message(Vec<u8>);

impl Message {
    /// Adds a number; 0 is the default and left out.
    pub fn number(mut self, field: u64, value: u64) -> Self {
        if value != 0 {
            self.varint(field << 3);
            self.varint(value);
        }
        self
    }

    /// Adds bytes; none is the default and left out.
    pub fn bytes(self, field: u64, value: &[u8]) -> Self {
        if value.is_empty() { self } else { self.message(field, value) }
    }

    /// Adds a message, also an empty one.
    pub fn message(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// The message.
    pub fn done(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let inner = Message::default().number(1, u64::MAX).done();
        let message = Message::default().number(2, 300).bytes(3, b"name").message(4, &inner).done();
        let fields: Vec<_> = Fields(&message).map(Result::unwrap).collect();
        let wanted = [(2, Value::Varint(300)), (3, Value::Bytes(b"name")), (4, Value::Bytes(&inner))];
        assert_eq!(fields, wanted);
        assert_eq!(Fields(&inner).next(), Some(Ok((1, Value::Varint(u64::MAX)))));
    }

    #[test]
    fn a_message_that_ends_early_is_malformed_and_read_no_further() {
        for cut in [&[0x0a_u8][..], &[0x0a, 5, 1], &[0x80; 12], &[0x0b]] {
            let mut fields = Fields(cut);
            assert_eq!(fields.next(), Some(Err(Malformed)), "{cut:?}");
            assert_eq!(fields.next(), None);
        }
    }

    #[test]
    fn it_agrees_with_another_implementation() {
        #[derive(Clone, PartialEq, prost::Message)]
        struct Other {
            #[prost(int64, tag = "1")]
            number: i64,
            #[prost(string, tag = "2")]
            text: String,
            #[prost(double, tag = "3")]
            float: f64,
        }
        let other = Other { number: 77, text: "x".repeat(200), float: 1.5 };
        let encoded = prost::Message::encode_to_vec(&other);
        let fields: Vec<_> = Fields(&encoded).map(Result::unwrap).collect();
        assert_eq!(fields[0], (1, Value::Varint(77)));
        assert_eq!(fields[1].1.text().unwrap(), other.text);
        assert_eq!(fields[2], (3, Value::Fixed));
    }
}
