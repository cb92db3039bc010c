//! What is going to happen, in the order of time; of what happens at the same
//! moment, in the order in which it was said.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// When something happens, how many were said before it, and where it lies.
type Entry = Reverse<(u64, u64, u32)>;

/// See the module's description.
pub struct Queue<T> {
    /// Small, as it is moved about with every push and pop; what is to happen lies
    /// still in `places`.
    heap: BinaryHeap<Entry>,
    places: Vec<Option<T>>,
    /// Empty places.
    free: Vec<u32>,
    numbers: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue { heap: BinaryHeap::new(), places: Vec::new(), free: Vec::new(), numbers: 0 }
    }
}

impl<T> Queue<T> {
    /// `what` is to happen at a true time.
    pub fn push(&mut self, at: u64, what: T) {
        self.numbers += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            (self.places.len() - 1) as u32
        });
        self.places[place as usize] = Some(what);
        self.heap.push(Reverse((at, self.numbers, place)));
    }

    /// What happens next, and when.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        Some((at, self.places[place as usize].take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_comes_first_and_then_the_order_of_saying() {
        let mut queue = Queue::default();
        for (at, what) in [(5, 'c'), (1, 'a'), (5, 'd'), (3, 'b')] {
            queue.push(at, what);
        }
        let mut order = String::new();
        for later in ['e', 'f'] {
            order.extend(queue.pop().map(|(_, what)| what));
            queue.push(5, later);
        }
        order.extend(std::iter::from_fn(|| queue.pop()).map(|(_, what)| what));
        assert_eq!(order, "abcdef");
    }
}
