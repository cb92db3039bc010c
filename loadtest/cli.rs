//! Flags.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use flotilla_testing::fleet::Against;

use crate::client::Model;
use crate::fleet::Ending;
use crate::workload::{Pace, Whose};
use crate::{limit, reader};

/// Measures how fast changes reach gateways, and what that costs.
///
/// Ends with 0 when nothing went wrong, with 1 when a gateway went back, lost what
/// nobody deleted, or did not end equal, with 2 when it could not measure.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Scenarios, and the parts that they start.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Changes at a steady rate: how long until every gateway has each.
    Propagation(Propagation),
    /// Creations as fast as the API server takes them.
    Burst(Furnished),
    /// The same, and gateways cannot load one of them: when the others are everywhere, and
    /// what its status says.
    Poisoned(Furnished),
    /// Gateways that come all at once and have nothing.
    Coldsync(Coldsync),
    /// A replica dies, and its gateways come back to the others at once.
    Reconnect(Reconnect),
    /// Changes while gateways join and leave.
    Churn(Churn),
    /// Changes while replicas end and come back by a schedule.
    Failover(Failover),
    /// Changes while all replicas are restarted, one after the other.
    Rolling(Steady),
    /// Changes of quiet tenants, alone and beside a loud one.
    Noisy(Noisy),
    /// Changes to gateways that read, alone and beside some that do not.
    Slow(Slow),
    /// The same changes on 1, 2, 3 and 5 replicas.
    Scale(Steady),
    /// Changes for hours, with kills, guests and rolling restarts; memory and descriptors
    /// are seen.
    Soak(Soak),
    /// Admission reviews of routes, among few and many: how long an answer takes.
    Admission(Admission),
    /// Very many routes: what reading them and their changes costs, beside kube's typed
    /// watcher, and how long a replica takes to start with them.
    Reading(ReadingLog),
    /// The product's decisions for a very large fleet in one process, without
    /// sockets: how costs and memory grow.
    FleetSim(FleetSim),
    /// Everything, with a page that compares the results with the targets.
    All(All),
    /// The yardstick's server; scenarios start it themselves.
    #[command(hide = true)]
    LimitServer(limit::Args),
    /// A reader of routes; `reading` starts it itself.
    #[command(hide = true)]
    Reader(reader::Args),
}

/// What a scenario runs against.
#[derive(Debug, Clone, Args)]
pub struct Fleet {
    /// What to start: `replicas=N,api=embedded` or `api=real`.
    #[arg(long, default_value = "replicas=1,api=embedded", conflicts_with = "kubeconfig")]
    pub start: Start,
    /// A cluster that is there already, with its controller.
    #[arg(long, requires = "operators")]
    pub kubeconfig: Option<PathBuf>,
    /// Where that controller serves gateways, once per replica.
    #[arg(long = "operator", value_name = "HOST:PORT", requires = "kubeconfig")]
    pub operators: Vec<SocketAddr>,
    /// The CA of that controller.
    #[arg(long, requires = "kubeconfig")]
    pub ca: Option<PathBuf>,
    /// A client certificate for all gateways.
    #[arg(long, requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its private key.
    #[arg(long, requires = "cert")]
    pub key: Option<PathBuf>,
    /// Connect without a client certificate.
    #[arg(long, conflicts_with = "cert")]
    pub no_client_cert: bool,
    /// The name that the controller's certificate must have.
    #[arg(long, default_value = "localhost")]
    pub server_name: String,
    /// What applying costs a gateway.
    #[arg(long, value_enum, default_value = "instant")]
    pub gateway_model: Model,
    /// Writes the result there as JSON; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes a page with plots there, and the result as JSON beside it.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Args, serde::Serialize)]
pub struct Size {
    /// Gateways.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub gateways: u32,
    /// Routes.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub routes: u32,
    /// Namespaces that they are in.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub namespaces: u32,
}

/// Admission reviews.
#[derive(Debug, Clone, Args)]
pub struct Admission {
    /// What it runs against: a fleet of its own.
    #[command(flatten)]
    pub fleet: Fleet,
    /// Routes that are there, one measurement after the other, ascending.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 10_000])]
    pub counts: Vec<u32>,
    /// Namespaces that they are in.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub namespaces: u32,
    /// Reviews of each sort per measurement.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub asks: u32,
}

/// `reading`
#[derive(Debug, Clone, Args)]
pub struct ReadingLog {
    /// What it runs against: a fleet of its own.
    #[command(flatten)]
    pub fleet: Fleet,
    /// Routes.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub routes: u32,
    /// Namespaces that they are in.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub namespaces: u32,
    /// Changes, as fast as the API server takes them.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub changes: u32,
}

/// Changes at a steady rate.
#[derive(Debug, Clone, Args)]
pub struct Steady {
    /// What it runs against.
    #[command(flatten)]
    pub fleet: Fleet,
    /// How much there is.
    #[command(flatten)]
    pub size: Size,
    /// Changes a second.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rate: u32,
    /// For how many seconds changes are made.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
}

impl Steady {
    /// How fast some of the tenants make changes.
    pub fn pace(&self, whose: Whose) -> Pace {
        Pace { rate: self.rate, seconds: self.seconds, whose }
    }
}

/// `reconnect`
#[derive(Debug, Clone, Args)]
pub struct Reconnect {
    /// The changes meanwhile.
    #[command(flatten)]
    pub steady: Steady,
    /// All gateways but so many are served by the replica that dies, and come back
    /// to one other; by default all replicas have their share.
    #[arg(long)]
    pub elsewhere: Option<u32>,
    /// Who loses its stream loses all that it has, too, as one that is restarted.
    #[arg(long)]
    pub forget: bool,
}

/// `coldsync`
#[derive(Debug, Clone, Args)]
pub struct Coldsync {
    /// What there is.
    #[command(flatten)]
    pub furnished: Furnished,
    /// Has a bare server bring the same to the same clients afterwards, and compares.
    #[arg(long)]
    pub vs_limit: bool,
}

/// `burst`, `poisoned`
#[derive(Debug, Clone, Args)]
pub struct Furnished {
    /// What it runs against.
    #[command(flatten)]
    pub fleet: Fleet,
    /// How much there is.
    #[command(flatten)]
    pub size: Size,
}

/// `propagation`
#[derive(Debug, Clone, Args)]
pub struct Propagation {
    /// The changes.
    #[command(flatten)]
    pub steady: Steady,
    /// Measures a bare server with the same clients afterwards, and compares.
    #[arg(long)]
    pub vs_limit: bool,
}

/// `slow`
#[derive(Debug, Clone, Args)]
pub struct Slow {
    /// The changes.
    #[command(flatten)]
    pub steady: Steady,
    /// More gateways, which do not read what they are sent.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub slow: u32,
    /// Bytes a second that these read.
    #[arg(long, default_value_t = 0)]
    pub slow_rate: u32,
}

/// `noisy`
#[derive(Debug, Clone, Args)]
pub struct Noisy {
    /// The quiet tenants' changes.
    #[command(flatten)]
    pub steady: Steady,
    /// Changes a second that the loud tenant makes.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub loud_rate: u32,
}

/// `failover`
#[derive(Debug, Clone, Args)]
pub struct Failover {
    /// The changes.
    #[command(flatten)]
    pub steady: Steady,
    /// Seconds from one end of a replica to the next.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    pub every: f64,
    /// Replicas that end at once; of those that end in order, one after the other.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub at_once: u32,
    /// Seconds until they are started again.
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub down: f64,
    /// How they end.
    #[arg(long, value_enum, default_value = "kill")]
    pub ending: Ending,
}

/// `churn`
#[derive(Debug, Clone, Args)]
pub struct Churn {
    /// The changes.
    #[command(flatten)]
    pub steady: Steady,
    /// Gateways that join a second.
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    pub joins: f64,
    /// Seconds that each stays.
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    pub stay: f64,
}

/// `soak`
#[derive(Debug, Clone, Args)]
pub struct Soak {
    /// The changes.
    #[command(flatten)]
    pub steady: Steady,
    /// Seconds from one event to the next: a kill, guests, a rolling restart.
    #[arg(long, default_value_t = 60.0, value_parser = seconds)]
    pub every: f64,
    /// Gateways that come and go together.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub guests: u32,
}

/// `fleet-sim`: the size of its last row. The first row is a tenth of it.
#[derive(Debug, Clone, Args)]
pub struct FleetSim {
    /// Gateways.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub gateways: u32,
    /// Namespaces.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub namespaces: u32,
    /// Routes in all of them.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub objects: u32,
    /// Replicas, each of which knows all routes.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub replicas: u32,
    /// Changes in every row.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub changes: u32,
    /// Writes the result there as JSON; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// `all`
#[derive(Debug, Clone, Args)]
pub struct All {
    /// Where results go.
    #[arg(long, value_name = "DIR")]
    pub report: PathBuf,
    /// How many times the runs are made that targets are for; figures are medians.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub times: u32,
    /// Only the runs of these names; of the others the page says what the folder has. An
    /// hour of `soak` is made only when it is named.
    #[arg(long, value_name = "RUN")]
    pub only: Vec<String>,
}

/// A positive number of seconds, or of things a second.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("use a number from 0.001 to 86400".to_owned()),
    }
}

/// What a run starts for itself.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// How many replicas.
    pub replicas: usize,
    /// Before which API server.
    pub api: Against,
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut start = Start { replicas: 1, api: Against::Embedded };
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("replicas", count)) => {
                    let count: u8 = count.parse().map_err(|_| format!("replicas={count}: use 1 to 9"))?;
                    if !(1..=9).contains(&count) {
                        return Err(format!("replicas={count}: use 1 to 9"));
                    }
                    start.replicas = usize::from(count);
                }
                Some(("api", "embedded")) => start.api = Against::Embedded,
                Some(("api", "real")) => start.api = Against::Real,
                _ => return Err(format!("{part}: use replicas=N and api=embedded or api=real")),
            }
        }
        Ok(start)
    }
}
