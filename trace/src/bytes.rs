//! The primitives of the format: LEB128 numbers, strings, and a cursor that never reads beyond.
//!
//! Knows nothing of: events.

/// Why bytes could not be decoded; the caller adds file and offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Appends `value` in LEB128: seven bits a byte, the lowest first, the top bit set on all but the
/// last.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the bytes of `text` after their number.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Folds the sign into bit 0, so that small differences of either sign are small numbers.
#[inline(always)]
pub(crate) fn zigzag(difference: u64) -> u64 {
    difference << 1 ^ (difference >> 63).wrapping_neg()
}

/// Undoes [`zigzag`]; the result is to be added with wrapping.
#[inline(always)]
pub(crate) fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

/// The `N` bytes of `bytes` from `at` on.
///
/// # Panics
/// If `bytes` ends before; the callers' buffers are of fixed length or padded.
#[inline(always)]
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes is an array of N bytes")
}

/// Reads along a slice.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at byte `at` of `bytes`.
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> Cursor<'a> {
        Cursor { bytes, at }
    }

    /// How far it has read.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Bytes that are left, which bounds any list that is still to come.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// Reads one byte.
    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = *self.bytes.get(self.at).ok_or(Malformed("an event is cut short"))?;
        self.at += 1;
        Ok(byte)
    }

    /// Reads what [`put_varint`] wrote.
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("a number has more than 64 bits"))
    }

    /// Reads a number of at most 32 bits.
    pub(crate) fn varint32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.varint()?).map_err(|_| Malformed("a number has more than 32 bits"))
    }

    /// Reads the number of elements of a list, each of which takes at least `bytes_min` bytes: a
    /// number that the rest cannot hold is refused before anything is allocated for it.
    pub(crate) fn count(&mut self, bytes_min: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if count > self.left() / bytes_min {
            return Err(Malformed("a list is longer than its block"));
        }
        Ok(count)
    }

    /// Reads what [`put_text`] wrote.
    pub(crate) fn text(&mut self) -> Result<String, Malformed> {
        let bytes = self.count(1)?;
        let text = &self.bytes[self.at..self.at + bytes];
        self.at += bytes;
        match std::str::from_utf8(text) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(Malformed("a text is not UTF-8")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length_come_back() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                let mut cursor = Cursor::new(&out, 0);
                assert_eq!(cursor.varint(), Ok(value));
                assert_eq!(cursor.left(), 0);
                assert_eq!(unzigzag(zigzag(value)), value);
            }
        }
    }

    #[test]
    fn a_number_of_65_bits_is_refused() {
        let long = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert!(Cursor::new(&long, 0).varint().is_err());
        assert!(Cursor::new(&[0x80; 20], 0).varint().is_err());
    }

    #[test]
    fn a_list_longer_than_the_rest_is_refused() {
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX);
        out.push(0);
        assert!(Cursor::new(&out, 0).count(1).is_err());
        assert!(Cursor::new(&out, 0).text().is_err());
    }
}
