//! Plans: one fault each, and when it strikes. A plan's name says everything
//! about it, so a name from a report is all that is needed to play it again:
//!
//! ```text
//! fault[=arguments]@verb:resource[/subresource][:namespace/name]#n
//! crash-after@patch:apiroutes/status:team-a/one#2
//! status=409,3@patch:backends/status#1
//! drop@event:apiroutes:team-b/one#3
//! ```
//!
//! The n-th occurrence is counted over all replicas, because which of them acts
//! is not the plan's to choose. For events it is the n-th state of the object
//! that any watch told of.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use flotilla_apiserver::{Place, Verb};
use flotilla_core::coordination::CoordinationConfig;

/// How long it takes at most until a Lease has run out and gateways have come back.
const RETURN: Duration = Duration::from_secs(50);
/// How long it takes at most until what was refused is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The replica is killed before its request reaches the API server.
    CrashBefore,
    /// The request is carried out, and the replica is killed before it hears so.
    CrashAfter,
    /// The request is carried out, and the connection breaks instead of an answer.
    LoseAnswer,
    /// So many requests in a row are answered with this code; 429 and 503 ask
    /// for a pause of a second.
    Status {
        /// HTTP status code.
        code: u16,
        /// How many requests in a row.
        times: u64,
    },
    /// The request is not carried out, and the connection breaks after this time.
    Hang(Duration),
    /// So many answers in a row come late; the requests themselves do not.
    Delay {
        /// How late.
        time: Duration,
        /// How many answers in a row.
        times: u64,
    },
    /// The answer ends in its middle, as if that were its end.
    Truncate,
    /// A watch ends with an ERROR event of code 410, at once or instead of the event.
    Gone {
        /// How many watches, or for events always one.
        times: u64,
    },
    /// The connection of a watch breaks instead of the event.
    Cut,
    /// All watches of the kind stand still for this time.
    Freeze(Duration),
    /// The event is left out.
    Drop,
    /// The event is left out, and the next one of the object tells of both.
    Merge,
    /// All replicas are killed, and the kinds that they serve are for this time
    /// after their start what they were before the event.
    Travel(Duration),
    /// One replica loses its watch, and lists for this time what was before the event.
    Relist(Duration),
    /// The API server cannot be reached for this time.
    Away(Duration),
}

/// Verbs of a request, and what else a fault can be aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Occasion {
    /// A request with this verb.
    Request(Verb),
    /// A request that changes something, of any verb.
    Write,
    /// A list that goes on with a continue token. Such plans get short pages.
    Page,
    /// An event of a watch.
    Event,
}

impl Occasion {
    const ALL: [Occasion; 11] = [
        Occasion::Request(Verb::Get),
        Occasion::Request(Verb::List),
        Occasion::Request(Verb::Watch),
        Occasion::Request(Verb::Create),
        Occasion::Request(Verb::Update),
        Occasion::Request(Verb::Patch),
        Occasion::Request(Verb::Delete),
        Occasion::Request(Verb::DeleteCollection),
        Occasion::Write,
        Occasion::Page,
        Occasion::Event,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Occasion::Request(verb) => verb.as_str(),
            Occasion::Write => "write",
            Occasion::Page => "page",
            Occasion::Event => "event",
        }
    }
}

/// Whether a verb changes something.
pub fn is_write(verb: Verb) -> bool {
    !matches!(verb, Verb::Get | Verb::List | Verb::Watch)
}

/// Namespace and name of an object; the namespace is empty for cluster-scoped ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
}

impl Object {
    /// The object of this namespace and name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Object { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which requests or events a plan counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Verb, or event.
    pub occasion: Occasion,
    /// Plural name, with `/` and the subresource if there is one. `*` is every
    /// resource but Leases, whose renewals would decide when a plan strikes.
    pub resource: String,
    /// One object; `None` counts all of the resource together.
    pub object: Option<Object>,
}

impl Target {
    /// A target of all objects of a resource.
    pub fn all(occasion: Occasion, resource: impl Into<String>) -> Self {
        Target { occasion, resource: resource.into(), object: None }
    }

    /// A target of one object.
    pub fn one(occasion: Occasion, resource: impl Into<String>, object: Object) -> Self {
        Target { occasion, resource: resource.into(), object: Some(object) }
    }

    /// Whether a request is one of those. `continued` says that it goes on
    /// with a list.
    pub fn is_request(&self, verb: Verb, place: &Place, continued: bool) -> bool {
        let occasion = match self.occasion {
            Occasion::Request(wanted) => wanted == verb,
            Occasion::Write => is_write(verb),
            Occasion::Page => verb == Verb::List && continued,
            Occasion::Event => false,
        };
        let resource = match self.resource.as_str() {
            "*" => place.resource != "leases",
            resource => resource == resource_of(place),
        };
        let object = self.object.as_ref();
        occasion
            && resource
            && object.is_none_or(|one| one.namespace == place.namespace && one.name == place.name)
    }
}

/// A resource as targets name it.
pub fn resource_of(place: &Place) -> String {
    match place.subresource.as_str() {
        "" => place.resource.clone(),
        subresource => format!("{}/{subresource}", place.resource),
    }
}

/// One fault at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What goes wrong.
    pub fault: Fault,
    /// What is counted.
    pub target: Target,
    /// At which occurrence it strikes, from 1.
    pub nth: u64,
}

impl Plan {
    /// A plan that strikes at the n-th occurrence.
    pub fn new(fault: Fault, target: Target, nth: u64) -> Self {
        Plan { fault, target, nth }
    }

    /// For how long the fault keeps the fleet from settling, at most.
    pub fn lasts(&self) -> Duration {
        match &self.fault {
            Fault::Hang(time)
            | Fault::Freeze(time)
            | Fault::Travel(time)
            | Fault::Relist(time)
            | Fault::Away(time) => *time,
            // However many answers are so late.
            Fault::Delay { time, .. } if *time < CoordinationConfig::default().request_timeout() => *time,
            Fault::Delay { time, times } => *time * u32::try_from(*times).unwrap_or(u32::MAX),
            Fault::Status { times, .. } | Fault::Gone { times } => Duration::from_secs(5 * times),
            _ => Duration::ZERO,
        }
    }
}

impl Plan {
    /// For how long after a strike changes may be late: where replicas die or lose their
    /// Leases, others wait for these, and gateways pause before they connect again.
    pub fn suffers(&self) -> Duration {
        let lost = matches!(
            self.fault,
            Fault::CrashBefore | Fault::CrashAfter | Fault::Travel(_) | Fault::Away(_) | Fault::Hang(_)
        );
        let of_replicas = matches!(self.target.resource.as_str(), "leases" | "secrets" | "*")
            || self.target.resource.starts_with("shardmaps");
        match self.fault {
            // Of what nobody sees nobody suffers.
            Fault::Drop | Fault::Merge => Duration::ZERO,
            _ if lost || of_replicas => self.lasts() + RETURN,
            _ => self.lasts() + RETRY,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: &Duration| time.as_secs();
        match self {
            Fault::CrashBefore => f.write_str("crash-before"),
            Fault::CrashAfter => f.write_str("crash-after"),
            Fault::LoseAnswer => f.write_str("lose-answer"),
            Fault::Status { code, times } => write!(f, "status={code},{times}"),
            Fault::Hang(time) => write!(f, "hang={}", seconds(time)),
            Fault::Delay { time, times } => write!(f, "delay={},{times}", time.as_secs_f64()),
            Fault::Truncate => f.write_str("truncate"),
            Fault::Gone { times } => write!(f, "gone={times}"),
            Fault::Cut => f.write_str("cut"),
            Fault::Freeze(time) => write!(f, "freeze={}", seconds(time)),
            Fault::Drop => f.write_str("drop"),
            Fault::Merge => f.write_str("merge"),
            Fault::Travel(time) => write!(f, "travel={}", seconds(time)),
            Fault::Relist(time) => write!(f, "relist={}", seconds(time)),
            Fault::Away(time) => write!(f, "away={}", seconds(time)),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target { occasion, resource, object } = &self.target;
        write!(f, "{}@{}:{resource}", self.fault, occasion.as_str())?;
        if let Some(object) = object {
            write!(f, ":{object}")?;
        }
        write!(f, "#{}", self.nth)
    }
}

/// Why a name is not a plan's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// It has not the form of a plan's name.
    #[error(
        "{0:?} is no plan: write fault[=arguments]@verb:resource[:namespace/name]#n; `--list` shows some"
    )]
    Form(String),
    /// The part in front of `@` is no fault, or its arguments do not fit.
    #[error("{0:?} is no fault, or has other arguments; `--list` shows which there are")]
    Fault(String),
    /// There is nothing like this to count.
    #[error("{0:?} is no verb of Kubernetes, and not write, page or event")]
    Occasion(String),
    /// The fault does not fit what it is aimed at.
    #[error("{fault} cannot strike at {occasion}: requests get answers, watches get events")]
    Mismatch {
        /// The fault.
        fault: String,
        /// What it was aimed at.
        occasion: &'static str,
    },
}

impl FromStr for Fault {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let wrong = || PlanError::Fault(text.to_owned());
        let (name, arguments) = text.split_once('=').unwrap_or((text, ""));
        // Parts of a second matter here and nowhere else.
        if name == "delay" {
            let (seconds, times) = arguments.split_once(',').ok_or_else(wrong)?;
            let time = seconds.parse().ok().and_then(|time| Duration::try_from_secs_f64(time).ok());
            let times = times.parse().map_err(|_| wrong())?;
            return Ok(Fault::Delay { time: time.ok_or_else(wrong)?, times });
        }
        let numbers: Vec<u64> = arguments
            .split(',')
            .filter(|part| !part.is_empty())
            .map(|part| part.parse().map_err(|_| wrong()))
            .collect::<Result<_, _>>()?;
        Ok(match (name, numbers.as_slice()) {
            ("crash-before", []) => Fault::CrashBefore,
            ("crash-after", []) => Fault::CrashAfter,
            ("lose-answer", []) => Fault::LoseAnswer,
            ("status", [code, times]) => {
                let code = u16::try_from(*code).ok().filter(|code| (400..600).contains(code));
                Fault::Status { code: code.ok_or_else(wrong)?, times: *times }
            }
            ("hang", [seconds]) => Fault::Hang(Duration::from_secs(*seconds)),
            ("truncate", []) => Fault::Truncate,
            ("gone", [times]) => Fault::Gone { times: *times },
            ("cut", []) => Fault::Cut,
            ("freeze", [seconds]) => Fault::Freeze(Duration::from_secs(*seconds)),
            ("drop", []) => Fault::Drop,
            ("merge", []) => Fault::Merge,
            ("travel", [seconds]) => Fault::Travel(Duration::from_secs(*seconds)),
            ("relist", [seconds]) => Fault::Relist(Duration::from_secs(*seconds)),
            ("away", [seconds]) => Fault::Away(Duration::from_secs(*seconds)),
            _ => return Err(wrong()),
        })
    }
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let form = || PlanError::Form(text.to_owned());
        let (fault, rest) = text.split_once('@').ok_or_else(form)?;
        let (target, nth) = rest.split_once('#').ok_or_else(form)?;
        let mut parts = target.split(':');
        let (Some(occasion), Some(resource), object, None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(form());
        };
        let known = Occasion::ALL.into_iter().find(|known| known.as_str() == occasion);
        let object = object
            .map(|one| one.split_once('/').map(|(namespace, name)| Object::new(namespace, name)))
            .map(|one| one.ok_or_else(form));
        let plan = Plan {
            fault: fault.parse()?,
            target: Target {
                occasion: known.ok_or_else(|| PlanError::Occasion(occasion.to_owned()))?,
                resource: resource.to_owned(),
                object: object.transpose()?,
            },
            nth: nth.parse().ok().filter(|nth| *nth > 0).ok_or_else(form)?,
        };
        plan.check()?;
        Ok(plan)
    }
}

impl Plan {
    fn check(&self) -> Result<(), PlanError> {
        let event = self.target.occasion == Occasion::Event;
        let watch = self.target.occasion == Occasion::Request(Verb::Watch);
        let fits = match self.fault {
            Fault::Cut
            | Fault::Freeze(_)
            | Fault::Drop
            | Fault::Merge
            | Fault::Travel(_)
            | Fault::Relist(_) => event,
            Fault::Gone { .. } => event || watch,
            Fault::Away(_) => true,
            _ => !event,
        };
        let occasion = self.target.occasion.as_str();
        if fits { Ok(()) } else { Err(PlanError::Mismatch { fault: self.fault.to_string(), occasion }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_whole_plan() {
        for name in [
            "crash-after@patch:apiroutes/status:team-a/one#2",
            "crash-before@create:secrets:system/ca#1",
            "lose-answer@page:backends#1",
            "status=409,3@patch:backends/status#1",
            "hang=12@update:leases#3",
            "delay=9,1@update:leases#4",
            "truncate@list:grpcroutes#1",
            "gone=8@watch:apiroutes#2",
            "gone=1@event:apiroutes:team-a/one#2",
            "cut@event:backends:team-a/api#1",
            "freeze=6@event:apiroutes:team-a/one#2",
            "drop@event:apiroutes:team-b/one#3",
            "merge@event:shardmaps:/fleet#2",
            "travel=3@event:apiroutes:team-b/one#4",
            "relist=3@event:apiroutes:team-b/one#4",
            "away=10@write:*#5",
        ] {
            let plan: Plan = name.parse().unwrap();
            assert_eq!(plan.to_string(), name);
        }
    }

    #[test]
    fn what_cannot_be_played_is_refused() {
        let form = |text: &str| PlanError::Form(text.to_owned());
        let check = |text: &str, expected: PlanError| assert_eq!(text.parse::<Plan>(), Err(expected));
        check("crash-after", form("crash-after"));
        check("drop@event:apiroutes#0", form("drop@event:apiroutes#0"));
        check("drop@event:apiroutes:one#1", form("drop@event:apiroutes:one#1"));
        check("status=200,1@get:a#1", PlanError::Fault("status=200,1".to_owned()));
        check("drop@see:a#1", PlanError::Occasion("see".to_owned()));
        let mismatch = PlanError::Mismatch { fault: "drop".to_owned(), occasion: "patch" };
        check("drop@patch:apiroutes/status#1", mismatch);
    }
}
