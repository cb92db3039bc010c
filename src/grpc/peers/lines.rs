//! Which members are reached at present, and on which stream.
//!
//! A member's former dialler may still be saying goodbye when its successor is
//! connected already. So every line has a number that is never used again, and
//! whoever cleans up removes the line that it entered and no other.

use std::collections::BTreeMap;

use flotilla_core::ids::MemberName;
use flotilla_proto::peer::peer_message::Message;
use tokio::sync::mpsc;

use super::dial::Client;

/// A member that we are connected to.
#[derive(Clone)]
pub(super) struct Line {
    pub forwards: mpsc::Sender<Message>,
    pub client: Client,
}

/// Names one line in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LineNumber(u64);

/// Lines that are up, by member: entered after the other side's Hello and
/// removed when the stream ends.
#[derive(Default)]
pub(super) struct Lines {
    by_member: BTreeMap<MemberName, (LineNumber, Line)>,
    entered: u64,
}

impl Lines {
    /// A line is up; it takes the place of an earlier one to the same member.
    pub fn enter(&mut self, member: MemberName, line: Line) -> LineNumber {
        self.entered += 1;
        let number = LineNumber(self.entered);
        self.by_member.insert(member, (number, line));
        number
    }

    /// A line has ended; the one that took its place stays.
    pub fn leave(&mut self, member: &MemberName, number: LineNumber) {
        if self.by_member.get(member).is_some_and(|(present, _)| *present == number) {
            self.by_member.remove(member);
        }
    }

    /// The members that are reached.
    pub fn members(&self) -> impl Iterator<Item = &MemberName> {
        self.by_member.keys()
    }

    /// The line to a member.
    pub fn of(&self, member: &MemberName) -> Option<&Line> {
        self.by_member.get(member).map(|(_, line)| line)
    }

    /// The lines to them.
    pub fn all(&self) -> impl Iterator<Item = &Line> {
        self.by_member.values().map(|(_, line)| line)
    }
}

#[cfg(test)]
mod tests {
    use tonic::transport::Endpoint;

    use super::*;

    fn line() -> Line {
        let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        Line { forwards: mpsc::channel(1).0, client: Client::new(channel) }
    }

    #[tokio::test]
    async fn a_former_line_does_not_take_its_successor_along() {
        let member = MemberName::from("b");
        let mut lines = Lines::default();
        let former = lines.enter(member.clone(), line());
        let present = lines.enter(member.clone(), line());
        lines.leave(&member, former);
        assert_eq!(lines.members().collect::<Vec<_>>(), [&member]);
        lines.leave(&member, present);
        assert_eq!(lines.all().count(), 0);
        // A number is not used again when nobody has it any more.
        let next = lines.enter(member.clone(), line());
        lines.leave(&member, present);
        assert_eq!(lines.all().count(), 1);
        lines.leave(&member, next);
        assert_eq!(lines.all().count(), 0);
    }
}
