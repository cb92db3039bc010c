//! The stage of one run: which fault is to strike, whether it has, and what
//! that means for every request and event until it is over. All proxies of the
//! run share it. The decisions take the time as an argument and do no IO;
//! killing is the proxies' business.

use std::time::{Duration, Instant};

use flotilla_apiserver::{Place, Verb};

use crate::plan::{Fault, Occasion, Plan, Target};
use crate::tape::{Change, State, Subject, Tape};

/// The kinds whose past a stale API server shows.
pub const SERVED: [&str; 4] = ["apiroutes", "grpcroutes", "backends", "grpcbackends"];
/// How many objects a page has when a plan is about pages: so few that there are
/// several pages from the first list on.
pub const SHORT_PAGE: u32 = 1;

/// What a proxy does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Passes it on, and the answer back.
    Pass,
    /// Breaks the connection.
    Cut,
    /// Kills the replica.
    KillBefore,
    /// Passes it on, and kills the replica instead of answering.
    KillAfter,
    /// Passes it on, and breaks the connection instead of answering.
    LoseAnswer,
    /// Answers by itself.
    Answer {
        /// HTTP status code.
        code: u16,
    },
    /// Breaks the connection after this time.
    Hang(Duration),
    /// Passes it on, and answers this much later.
    Delay(Duration),
    /// Passes it on, and answers with the first half of the body.
    Truncate,
    /// Answers a watch with one ERROR event of code 410.
    Gone,
    /// Passes a list on as one of this revision.
    AsOf(u64),
    /// Passes a watch on after this time.
    Hold(Duration),
}

/// What a proxy does with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventVerdict {
    /// Passes it on.
    Pass,
    /// Passes it on under another name.
    PassAs(Change),
    /// Leaves it out.
    Drop,
    /// Breaks the connection.
    Cut,
    /// Sends an ERROR event of code 410 instead, and ends the watch.
    Gone,
    /// Passes it on, and kills all replicas when it has gone out.
    PassAndKillAll,
    /// Waits this long and asks again.
    Hold(Duration),
}

/// What lasts after a fault has struck.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Aftermath {
    /// Nothing, or nothing yet.
    None,
    /// Watches of this resource stand still.
    Frozen { resource: String, until: Instant },
    /// The served kinds, or one of them for one replica, are of the past.
    Past { revision: u64, only: Option<(usize, String)>, until: Instant },
    /// Nothing answers.
    Away { until: Instant },
}

/// The stage. See the module.
#[derive(Debug)]
pub struct Stage {
    plan: Option<Plan>,
    /// Occurrences counted so far.
    seen: u64,
    struck: u64,
    /// Until when the fleet may suffer from what has struck.
    troubled: Option<Instant>,
    aftermath: Aftermath,
    /// The scenario's phase.
    pub phase: u32,
    /// What was seen.
    pub tape: Tape,
}

impl Stage {
    /// A stage for a plan, or for the reference run without one.
    pub fn new(plan: Option<Plan>) -> Self {
        let aftermath = Aftermath::None;
        Stage { plan, seen: 0, struck: 0, troubled: None, aftermath, phase: 0, tape: Tape::default() }
    }

    /// How often the fault struck.
    pub fn struck(&self) -> u64 {
        self.struck
    }

    /// How often the fault had struck when it was over for the fleet, too; `None` while it
    /// is not.
    pub fn calm_since(&self, now: Instant) -> Option<u64> {
        self.troubled.is_none_or(|until| until <= now).then_some(self.struck)
    }

    /// The fault has struck so many times more.
    fn strikes(&mut self, now: Instant, times: u64) {
        self.struck += times;
        let suffers = self.plan.as_ref().filter(|_| times > 0).map(|plan| now + plan.suffers());
        self.troubled = self.troubled.max(suffers);
    }

    /// No fault strikes from now on, and what lasts of one is over.
    pub fn calm(&mut self) {
        self.plan = None;
        self.aftermath = Aftermath::None;
    }

    /// Whether lists get short pages.
    pub fn has_short_pages(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.target.occasion == Occasion::Page)
    }

    /// For how long from now on nothing answers, if that is so.
    pub fn away(&self, now: Instant) -> Option<Duration> {
        match self.aftermath {
            Aftermath::Away { until } => left(now, until),
            _ => None,
        }
    }

    /// Decides about a request of a replica. `continued` says that it goes on
    /// with a list.
    pub fn request(
        &mut self,
        now: Instant,
        replica: usize,
        verb: Verb,
        place: &Place,
        continued: bool,
    ) -> Verdict {
        if self.away(now).is_some() {
            return Verdict::Cut;
        }
        if let Some(fault) = self.strikes_request(now, verb, place, continued) {
            let verdict = self.strike(now, fault);
            if verdict != Verdict::Pass {
                return verdict;
            }
        }
        self.lasting(now, replica, verb, place)
    }

    fn strikes_request(&mut self, now: Instant, verb: Verb, place: &Place, continued: bool) -> Option<Fault> {
        let plan = self.plan.clone().filter(|plan| plan.target.is_request(verb, place, continued))?;
        self.seen += 1;
        let times = match plan.fault {
            Fault::Status { times, .. } | Fault::Delay { times, .. } | Fault::Gone { times } => times,
            _ => 1,
        };
        let strikes = self.seen >= plan.nth && self.seen - plan.nth < times;
        self.strikes(now, u64::from(strikes));
        strikes.then_some(plan.fault)
    }

    fn strike(&mut self, now: Instant, fault: Fault) -> Verdict {
        match fault {
            Fault::CrashBefore => Verdict::KillBefore,
            Fault::CrashAfter => Verdict::KillAfter,
            Fault::LoseAnswer => Verdict::LoseAnswer,
            Fault::Status { code, .. } => Verdict::Answer { code },
            Fault::Hang(time) => Verdict::Hang(time),
            Fault::Delay { time, .. } => Verdict::Delay(time),
            Fault::Truncate => Verdict::Truncate,
            Fault::Gone { .. } => Verdict::Gone,
            Fault::Away(time) => {
                self.aftermath = Aftermath::Away { until: now + time };
                Verdict::Cut
            }
            // Those of events: a plan is refused that aims them at requests.
            Fault::Cut
            | Fault::Freeze(_)
            | Fault::Drop
            | Fault::Merge
            | Fault::Travel(_)
            | Fault::Relist(_) => Verdict::Pass,
        }
    }

    /// What is still in force of an earlier strike.
    fn lasting(&self, now: Instant, replica: usize, verb: Verb, place: &Place) -> Verdict {
        let Aftermath::Past { revision, only, until } = &self.aftermath else { return Verdict::Pass };
        let meant = match only {
            Some((who, resource)) => *who == replica && *resource == place.resource,
            None => SERVED.contains(&place.resource.as_str()),
        };
        match (left(now, *until).filter(|_| meant), verb) {
            (Some(_), Verb::List) => Verdict::AsOf(*revision),
            (Some(left), Verb::Watch) => Verdict::Hold(left),
            _ => Verdict::Pass,
        }
    }

    /// Decides about an event that a watch is to deliver to a replica, and
    /// keeps it. Asked again for the same event, it counts it once.
    pub fn event(&mut self, now: Instant, replica: usize, subject: &Subject, state: &State) -> EventVerdict {
        let number = self.tape.event(subject, State { phase: self.phase, ..state.clone() });
        if let Some(held) = self.frozen(now, &subject.0) {
            return EventVerdict::Hold(held);
        }
        let Some(plan) = self.plan.clone() else { return EventVerdict::Pass };
        let Target { occasion, resource, object } = &plan.target;
        let meant = *occasion == Occasion::Event
            && *resource == subject.0
            && object.as_ref().is_none_or(|one| *one == subject.1);
        if meant && plan.fault == Fault::Merge && number == plan.nth + 1 {
            return self.told_with_left_out(subject, state);
        }
        if !meant || number != plan.nth {
            return EventVerdict::Pass;
        }
        self.strike_event(now, replica, subject, state, &plan.fault)
    }

    /// The event that follows the left out one, and tells of both.
    fn told_with_left_out(&self, subject: &Subject, state: &State) -> EventVerdict {
        let states = &self.tape.states()[subject];
        let place = states.partition_point(|one| one.revision < state.revision);
        let Some(before) = place.checked_sub(1).map(|index| &states[index]) else {
            return EventVerdict::Pass;
        };
        // A later event of the same content only tells of a status.
        match state.has_content_of(before) {
            true => EventVerdict::Pass,
            false => both(before.change, state.change).map_or(EventVerdict::Drop, EventVerdict::PassAs),
        }
    }

    fn strike_event(
        &mut self,
        now: Instant,
        replica: usize,
        subject: &Subject,
        state: &State,
        fault: &Fault,
    ) -> EventVerdict {
        let first = self.struck == 0;
        // Every replica misses what is left out; all else strikes once.
        if !first && !matches!(fault, Fault::Drop | Fault::Merge) {
            return EventVerdict::Pass;
        }
        self.strikes(now, 1);
        let past = state.revision.saturating_sub(1);
        match fault {
            Fault::Drop | Fault::Merge => EventVerdict::Drop,
            Fault::Cut => EventVerdict::Cut,
            Fault::Gone { .. } => EventVerdict::Gone,
            Fault::Freeze(time) => {
                self.aftermath = Aftermath::Frozen { resource: subject.0.clone(), until: now + *time };
                EventVerdict::Hold(*time)
            }
            Fault::Travel(time) => {
                self.aftermath = Aftermath::Past { revision: past, only: None, until: now + *time };
                EventVerdict::PassAndKillAll
            }
            Fault::Relist(time) => {
                let only = Some((replica, subject.0.clone()));
                self.aftermath = Aftermath::Past { revision: past, only, until: now + *time };
                EventVerdict::Gone
            }
            Fault::Away(time) => {
                self.aftermath = Aftermath::Away { until: now + *time };
                EventVerdict::Cut
            }
            _ => EventVerdict::Pass,
        }
    }

    /// For how long watches of this resource stand still. Bookmarks ask, too:
    /// they must not run ahead of what is held back.
    pub fn frozen(&self, now: Instant, resource: &str) -> Option<Duration> {
        match &self.aftermath {
            Aftermath::Frozen { resource: frozen, until } if frozen == resource => left(now, *until),
            _ => None,
        }
    }
}

fn left(now: Instant, until: Instant) -> Option<Duration> {
    until.checked_duration_since(now).filter(|left| !left.is_zero())
}

/// How one event tells of two changes; `None` when they cancel each other.
fn both(first: Change, second: Change) -> Option<Change> {
    match (first, second) {
        (Change::Added, Change::Deleted) => None,
        (Change::Added, _) => Some(Change::Added),
        (Change::Deleted, Change::Added) => Some(Change::Modified),
        (_, second) => Some(second),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Object;

    fn stage(plan: &str) -> Stage {
        Stage::new(Some(plan.parse().unwrap()))
    }

    fn place(resource: &str, subresource: &str) -> Place {
        Place {
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: "a".to_owned(),
            name: "x".to_owned(),
            ..Place::default()
        }
    }

    fn subject() -> Subject {
        ("apiroutes".to_owned(), Object::new("a", "x"))
    }

    fn state(change: Change, revision: u64) -> State {
        State { phase: 0, change, revision, generation: revision as i64, uid: String::new() }
    }

    #[test]
    fn the_nth_request_is_struck_and_as_many_after_it_as_asked() {
        let mut stage = stage("status=409,2@patch:apiroutes/status:a/x#2");
        let now = Instant::now();
        let status = place("apiroutes", "status");
        let other = Place { name: "y".to_owned(), ..status.clone() };
        let mut ask = |place: &Place| stage.request(now, 0, Verb::Patch, place, false);
        assert_eq!(ask(&status), Verdict::Pass);
        assert_eq!(ask(&other), Verdict::Pass);
        assert_eq!(ask(&status), Verdict::Answer { code: 409 });
        assert_eq!(ask(&other), Verdict::Pass);
        assert_eq!(ask(&status), Verdict::Answer { code: 409 });
        assert_eq!(ask(&status), Verdict::Pass);
        assert_eq!(stage.struck(), 2);
    }

    #[test]
    fn the_fleet_suffers_for_a_while_from_what_has_struck() {
        let mut stage = stage("crash-after@patch:apiroutes/status:a/x#1");
        let now = Instant::now();
        assert_eq!(stage.calm_since(now), Some(0));
        stage.request(now, 0, Verb::Patch, &place("apiroutes", "status"), false);
        assert_eq!(stage.calm_since(now + Duration::from_secs(20)), None);
        assert_eq!(stage.calm_since(now + Duration::from_secs(60)), Some(1));
    }

    #[test]
    fn a_left_out_event_is_left_out_for_every_replica() {
        let mut stage = stage("drop@event:apiroutes:a/x#2");
        let now = Instant::now();
        let mut ask = |replica: usize, revision: u64| {
            stage.event(now, replica, &subject(), &state(Change::Modified, revision))
        };
        for replica in [0, 1] {
            assert_eq!(ask(replica, 5), EventVerdict::Pass);
            assert_eq!(ask(replica, 7), EventVerdict::Drop);
            assert_eq!(ask(replica, 8), EventVerdict::Pass);
        }
    }

    #[test]
    fn merged_events_tell_of_both() {
        for (first, second, expected) in [
            (Change::Deleted, Change::Added, EventVerdict::PassAs(Change::Modified)),
            (Change::Added, Change::Modified, EventVerdict::PassAs(Change::Added)),
            (Change::Added, Change::Deleted, EventVerdict::Drop),
            (Change::Modified, Change::Deleted, EventVerdict::PassAs(Change::Deleted)),
        ] {
            let mut stage = stage("merge@event:apiroutes:a/x#1");
            let now = Instant::now();
            assert_eq!(stage.event(now, 0, &subject(), &state(first, 5)), EventVerdict::Drop);
            assert_eq!(stage.event(now, 0, &subject(), &state(second, 6)), expected, "{first:?} {second:?}");
        }
    }

    #[test]
    fn time_travel_shows_the_past_and_then_the_present() {
        let mut stage = stage("travel=3@event:apiroutes:a/x#1");
        let now = Instant::now();
        let event = state(Change::Deleted, 50);
        assert_eq!(stage.event(now, 0, &subject(), &event), EventVerdict::PassAndKillAll);
        assert_eq!(stage.event(now, 1, &subject(), &event), EventVerdict::Pass);
        let backends = place("backends", "");
        assert_eq!(stage.request(now, 1, Verb::List, &backends, false), Verdict::AsOf(49));
        let held = stage.request(now, 1, Verb::Watch, &backends, false);
        assert_eq!(held, Verdict::Hold(Duration::from_secs(3)));
        assert_eq!(stage.request(now, 1, Verb::List, &place("leases", ""), false), Verdict::Pass);
        let later = now + Duration::from_secs(3);
        assert_eq!(stage.request(later, 1, Verb::List, &backends, false), Verdict::Pass);
    }

    #[test]
    fn a_frozen_kind_holds_events_and_bookmarks() {
        let mut stage = stage("freeze=6@event:apiroutes:a/x#1");
        let now = Instant::now();
        let event = state(Change::Added, 5);
        let six = Duration::from_secs(6);
        assert_eq!(stage.event(now, 0, &subject(), &event), EventVerdict::Hold(six));
        assert_eq!(stage.frozen(now, "apiroutes"), Some(six));
        assert_eq!(stage.frozen(now, "backends"), None);
        assert_eq!(stage.event(now + six, 0, &subject(), &event), EventVerdict::Pass);
        assert_eq!(stage.struck(), 1);
    }

    #[test]
    fn an_api_server_that_is_away_answers_nobody() {
        let mut stage = stage("away=10@write:*#1");
        let now = Instant::now();
        let renew = place("leases", "");
        assert_eq!(stage.request(now, 0, Verb::Update, &renew, false), Verdict::Pass);
        assert_eq!(stage.request(now, 0, Verb::Patch, &place("apiroutes", "status"), false), Verdict::Cut);
        assert_eq!(stage.request(now, 1, Verb::Update, &renew, false), Verdict::Cut);
        let later = now + Duration::from_secs(10);
        assert_eq!(stage.request(later, 1, Verb::Update, &renew, false), Verdict::Pass);
    }
}
