//! A batch as the DATA of one stream: what is shared is not copied where that would
//! cost more than it saves, and each message gets the stream's own sequence.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::encode::{EncodedBatch, PREFIX, TAIL, sequence_tail};

/// Messages up to this size are copied together into one DATA frame; larger
/// ones are written in slices of it without being copied.
const SLICE: usize = 16 * 1024;

/// What is left to be written of a batch.
#[derive(Debug)]
pub struct Frames {
    batch: Arc<EncodedBatch>,
    first_sequence: i64,
    /// Index of the next update.
    next: usize,
    /// What is left of a large message that has begun.
    rest: VecDeque<Bytes>,
}

impl Frames {
    /// All of a batch, with sequences counting up from `first_sequence`.
    pub fn new(batch: Arc<EncodedBatch>, first_sequence: i64) -> Self {
        Frames { batch, first_sequence, next: 0, rest: VecDeque::new() }
    }

    /// Whether a message has begun and is not finished.
    pub fn within_a_message(&self) -> bool {
        !self.rest.is_empty()
    }
}

/// The payloads of DATA frames, in order; each at most 16 KiB.
impl Iterator for Frames {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if let Some(slice) = self.rest.pop_front() {
            return Some(slice);
        }
        let left = self.batch.updates.get(self.next..).unwrap_or_default();
        let sizes = left.iter().scan(0, |sum, shared| {
            *sum += PREFIX + shared.len() + TAIL;
            (*sum <= SLICE).then_some(*sum)
        });
        let mut room = [0; TAIL];
        let mut packed = BytesMut::with_capacity(sizes.last().unwrap_or_default());
        while let Some(shared) = self.batch.updates.get(self.next) {
            let sequence = self.first_sequence.saturating_add(i64::try_from(self.next).unwrap_or(i64::MAX));
            let tail = sequence_tail(sequence, &mut room);
            let length = shared.len() + tail.len();
            let small = PREFIX + length <= SLICE;
            if !packed.is_empty() && (!small || packed.len() + PREFIX + length > SLICE) {
                break;
            }
            self.next += 1;
            packed.put_u8(0);
            // No message reaches 4 GiB: the limit is a thousandth of that.
            packed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
            if !small {
                let mut left = shared.clone();
                while left.len() > SLICE {
                    self.rest.push_back(left.split_to(SLICE));
                }
                self.rest.push_back(left);
                self.rest.push_back(Bytes::copy_from_slice(tail));
                break;
            }
            packed.extend_from_slice(shared);
            packed.extend_from_slice(tail);
        }
        (!packed.is_empty()).then(|| packed.freeze())
    }
}
