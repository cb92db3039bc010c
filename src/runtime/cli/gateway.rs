//! Flags of `flotilla gateway`: those of a real gateway (wire §2 point 15) and
//! those of a test bed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::environment::truth;

/// Labels of a gateway, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(pub BTreeMap<String, String>);

/// Reads labels. Each key once: of two values nobody knows which is meant.
fn labels(text: &str) -> Result<Labels, String> {
    let mut labels = BTreeMap::new();
    for label in text.split(',').filter(|_| !text.trim().is_empty()) {
        let (key, value) =
            label.split_once('=').map(|(key, value)| (key.trim(), value.trim())).unwrap_or_default();
        if key.is_empty() {
            return Err(format!("{label:?} is no label; use KEY=VALUE, several separated by commas"));
        }
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(format!("{key:?} is there twice; give each key once"));
        }
    }
    Ok(Labels(labels))
}

/// Flags of reference gateways.
#[derive(Debug, Clone, clap::Args)]
pub struct GatewayArgs {
    /// HOST:PORT of replicas, separated by commas; used in turn, like a Service would
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', required_unless_present = "push_listen", action = clap::ArgAction::Set)]
    pub operator_address: Vec<String>,
    /// Name of the gateway; with --count, names get a number appended
    #[arg(long, value_name = "NAME", default_value = "gateway")]
    pub gateway_name: String,
    /// Namespace of the gateway
    #[arg(long, value_name = "NAMESPACE", default_value = "gateways")]
    pub gateway_namespace: String,
    /// CA that the replicas' certificates must be signed by
    #[arg(long, value_name = "FILE", required = true)]
    pub operator_ca_file: PathBuf,
    /// Client certificate. With --count: a folder with NAME/tls.crt and NAME/tls.key. Default: it shows none, which
    /// replicas have to allow
    #[arg(
        long,
        value_name = "FILE",
        requires = "operator_key_file",
        required_unless_present = "operator_address"
    )]
    pub operator_cert_file: Option<PathBuf>,
    /// Key of the client certificate
    #[arg(long, value_name = "FILE", requires = "operator_cert_file")]
    pub operator_key_file: Option<PathBuf>,
    /// Namespaces to be given, separated by commas. Default: all
    #[arg(long, value_name = "NAMES", value_delimiter = ',', action = clap::ArgAction::Set)]
    pub operator_namespaces: Vec<String>,
    /// Labels that it says it has, which rules of the replicas' policy may ask for: KEY=VALUE, separated by commas
    #[arg(long, value_name = "KEY=VALUE", default_value = "", hide_default_value = true, value_parser = labels)]
    pub labels: Labels,
    /// How many gateways to run in this process
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub count: u32,
    /// Address that serves HTTP for the routes it was given; with --count, of the first gateway
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Wait for replicas at this address instead of dialling them; with --count, one address for each gateway,
    /// separated by commas
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', conflicts_with = "operator_address", action = clap::ArgAction::Set)]
    pub push_listen: Vec<SocketAddr>,
    /// With --push-listen: offer to take many updates in one call (true, false)
    #[arg(long, value_name = "BOOL", default_value = "true", value_parser = truth, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub push_batches: bool,
    /// Address of /config, /digest, /stats and /events
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub admin_listen: SocketAddr,
    /// Take as long to apply as a real gateway does (true, false)
    #[arg(long, value_name = "BOOL", default_value = "false", value_parser = truth, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub real_apply_cost: bool,
    /// Write the addresses that it listens on to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub address_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_keys_with_values_and_each_key_stands_once() {
        let read = |text: &str| {
            labels(text).map(|read| read.0.into_iter().map(|(key, value)| format!("{key}:{value}")).collect())
        };
        let good = |text: &str, expected: &[&str]| {
            let read: Vec<String> = read(text).unwrap();
            assert_eq!(read, expected, "{text:?}");
        };
        good("", &[]);
        good("tier=public", &["tier:public"]);
        good("tier=public, a.b/zone=eu-1", &["a.b/zone:eu-1", "tier:public"]);
        good("empty=,sum=a=b", &["empty:", "sum:a=b"]);
        let bad = |text: &str, words: [&str; 2]| {
            let error = read(text).map(|_: Vec<String>| ()).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{text:?}: {error}");
        };
        bad("tier", ["\"tier\"", "KEY=VALUE"]);
        bad("tier:public", ["\"tier:public\"", "KEY=VALUE"]);
        bad("=public", ["\"=public\"", "KEY=VALUE"]);
        bad("tier=public,", ["\"\"", "KEY=VALUE"]);
        bad("tier=public,tier=internal", ["\"tier\"", "once"]);
    }
}
