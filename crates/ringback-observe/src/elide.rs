//! Shortens the string literals of one very long JSON line while it streams by.
//!
//! Owns: where a literal may be cut so that the JSON stays valid. Does not know: files, records, or what a field
//! means. Bytes come from [`tail`](crate::tail), which turns to this only for lines that are too long to keep.

/// Bytes kept of one string literal, about: a cut waits for the end of a character or escape.
pub const LITERAL_BYTES: usize = 4 * 1024;
/// Bytes kept of one line after shortening; a line that is still longer is dropped.
pub const LINE_BYTES: usize = 1024 * 1024;

/// State of the shortening between two pieces of a line.
#[derive(Clone, Debug)]
pub struct Elider {
    out: Vec<u8>,
    overflowed: bool,
    place: Place,
    /// Bytes of the current literal that were passed on.
    kept: usize,
    /// The literal ran over; the rest of it is left out.
    skipping: bool,
    /// The escape just passed was the first half of a surrogate pair.
    after_high: bool,
    /// Up to four hex digits of a `\u` escape.
    hex: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Outside,
    Inside,
    Backslash,
    Unicode { digits: u8 },
}

impl Elider {
    /// At the start of a line.
    pub fn new() -> Self {
        Elider {
            out: Vec::new(),
            overflowed: false,
            place: Place::Outside,
            kept: 0,
            skipping: false,
            after_high: false,
            hex: 0,
        }
    }

    /// Takes in the next bytes of the line.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            if self.skipping && self.place == Place::Inside {
                // Most of a 50 MB line is the inside of one literal.
                match memchr::memchr2(b'"', b'\\', rest) {
                    Some(at) => rest = &rest[at..],
                    None => return,
                }
                self.byte(rest[0]);
                rest = &rest[1..];
            } else {
                self.byte(first);
                rest = &rest[1..];
            }
        }
    }

    /// The shortened line; `None` when it is longer than [`LINE_BYTES`] even so.
    pub fn finish(self) -> Option<Vec<u8>> {
        (!self.overflowed).then_some(self.out)
    }

    fn byte(&mut self, b: u8) {
        match self.place {
            Place::Outside => {
                if b == b'"' {
                    self.place = Place::Inside;
                    self.kept = 0;
                    self.skipping = false;
                    self.after_high = false;
                }
                self.pass(b);
            }
            Place::Inside => {
                if b == b'"' {
                    self.place = Place::Outside;
                    self.skipping = false;
                    self.pass(b);
                    return;
                }
                self.skipping |= self.kept >= LITERAL_BYTES && self.may_cut_before(b);
                if b == b'\\' {
                    self.place = Place::Backslash;
                } else {
                    self.after_high = false;
                }
                self.pass_literal(b);
            }
            Place::Backslash => {
                self.place = if b == b'u' { Place::Unicode { digits: 0 } } else { Place::Inside };
                self.hex = 0;
                if b != b'u' {
                    self.after_high = false;
                }
                self.pass_literal(b);
            }
            Place::Unicode { digits } => {
                self.hex = self.hex * 16 + char::from(b).to_digit(16).unwrap_or(0);
                if digits == 3 {
                    self.after_high = (0xD800..0xDC00).contains(&self.hex);
                    self.place = Place::Inside;
                } else {
                    self.place = Place::Unicode { digits: digits + 1 };
                }
                self.pass_literal(b);
            }
        }
    }

    /// Between characters, and not between the halves of a surrogate pair.
    fn may_cut_before(&self, b: u8) -> bool {
        let continues_a_character = b & 0b1100_0000 == 0b1000_0000;
        let is_second_half = self.after_high && b == b'\\';
        !(continues_a_character || is_second_half)
    }

    fn pass_literal(&mut self, b: u8) {
        if !self.skipping {
            self.kept += 1;
            self.pass(b);
        }
    }

    fn pass(&mut self, b: u8) {
        if self.overflowed {
            return;
        }
        if self.out.len() == LINE_BYTES {
            self.overflowed = true;
            self.out = Vec::new();
        } else {
            self.out.push(b);
        }
    }
}

impl Default for Elider {
    fn default() -> Self {
        Elider::new()
    }
}
