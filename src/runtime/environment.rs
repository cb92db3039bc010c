//! Flags and the environment, in one place: nothing else reads either.
//!
//! A variable beats its flag, and a variable with an unusable value is ignored
//! with a warning: a typing error in a ConfigMap must not keep a
//! replica from starting. A wrong flag is an error. `KUBECONFIG` belongs to
//! everything that talks to Kubernetes: as for kubectl, the flag beats it, and
//! only commands that look for a cluster read it.
//!
//! Command lines of programs that are written in Go go on working: one dash is
//! as good as two, and a truth without a value is true.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use clap::{CommandFactory, Parser};

use crate::cli::Args;

/// A variable that was ignored.
#[derive(Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Its name.
    pub variable: String,
    /// What is wrong with its value, and what to do.
    pub problem: String,
}

/// The variables that are text; no other can be meant for us.
pub fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// The environment for processes that this one starts with flags of its own:
/// all of it, because what is behind a kubeconfig (a plugin that fetches
/// credentials, a proxy) reads variables that we cannot know, but nothing that
/// one of our commands would take for a setting. A variable meant for one
/// replica must not reach twenty gateways.
pub fn for_children(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> impl Iterator<Item = (OsString, OsString)> {
    let command = Args::command();
    let mut ours: BTreeSet<String> = command
        .get_subcommands()
        .flat_map(|command| bound(command.get_name()))
        .map(|(name, _)| name)
        .collect();
    ours.insert("KUBECONFIG".to_owned());
    let meant_for_us = move |name: &OsString| {
        name.to_str().is_some_and(|name| ours.contains(name) || name.starts_with("FLOTILLA_"))
    };
    variables.into_iter().filter(move |(name, _)| !meant_for_us(name))
}

/// Parses the command line and lets the environment have the last word.
///
/// # Errors
/// Clap's own error for a wrong command line (and for `--help`).
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<(Args, Vec<Complaint>), clap::Error> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let name = subcommand(&arguments);
    if let Some(name) = &name {
        lengthen(&mut arguments, name);
    }
    // Whatever is wrong with the flags themselves is said first.
    let plain = Args::try_parse_from(&arguments);
    let variables: BTreeMap<String, String> = variables.into_iter().collect();
    let Some(name) = name else { return plain.map(|args| (args, Vec::new())) };
    let mut extended = arguments.clone();
    let mut complaints = Vec::new();
    let given = |variable: &str| variables.get(variable).filter(|value| !value.is_empty());
    for (variable, flag) in bound(&name) {
        let Some(value) = given(&variable) else { continue };
        let mut with_it = extended.clone();
        with_it.push(format!("--{}={value}", flag.name).into());
        match Args::try_parse_from(&with_it) {
            Err(error) if error.use_stderr() && !is_about_something_else(&error) => {
                complaints.push(Complaint {
                    problem: format!(
                        "{value:?} is no value for --{}: {}; the flag or its default is used",
                        flag.name,
                        reason(&error)
                    ),
                    variable,
                })
            }
            _ => {
                extended = with_it;
                // A StatefulSet that sets our name must not silence in passing what somebody says by another.
                let unheard = flag
                    .others
                    .iter()
                    .map(|other| self::variable(other))
                    .filter(|other| given(other).is_some_and(|said| said != value));
                let own = &variable;
                complaints.extend(unheard.map(|other| Complaint {
                    problem: format!(
                        "{own} is another name of it, says {value:?}, and is used; leave one of them out"
                    ),
                    variable: other,
                }));
            }
        }
    }
    Args::try_parse_from(&extended).map(|args| (args, complaints))
}

/// The subcommand's name: the first argument that is one.
fn subcommand(arguments: &[OsString]) -> Option<String> {
    let command = Args::command();
    arguments.iter().skip(1).find_map(|argument| {
        let text = argument.to_str()?;
        command.find_subcommand(text).map(|found| found.get_name().to_owned())
    })
}

/// A flag under one of its names.
struct Flag {
    name: String,
    /// Its other names, when this one is its own.
    others: Vec<String>,
}

/// Flags of one subcommand and of all. Other names of a flag come before its
/// own, so that of two variables for one flag its own has the last word.
fn flags(name: &str) -> Vec<Flag> {
    let command = Args::command();
    let own = command.find_subcommand(name).into_iter().flat_map(clap::Command::get_arguments);
    own.chain(command.get_arguments())
        .flat_map(|argument| {
            let aliases = argument.get_all_aliases().unwrap_or_default();
            let others: Vec<String> = aliases.into_iter().map(str::to_owned).collect();
            let alone = |name: &String| Flag { name: name.clone(), others: Vec::new() };
            let mut flags: Vec<Flag> = others.iter().map(alone).collect();
            flags.extend(argument.get_long().map(|name| Flag { name: name.to_owned(), others }));
            flags
        })
        .collect()
}

/// Variables and the flags they set.
fn bound(name: &str) -> impl Iterator<Item = (String, Flag)> {
    let settable = flags(name)
        .into_iter()
        .filter(|flag| !matches!(flag.name.as_str(), "help" | "version" | "kubeconfig"));
    settable.map(|flag| (variable(&flag.name), flag))
}

/// Makes `--grpc-port` of `-grpc-port`. No flag has a short form of more than
/// one letter, and values do not begin with a dash, so it can mean nothing else.
fn lengthen(arguments: &mut [OsString], name: &str) {
    let flags = flags(name);
    for argument in arguments.iter_mut().skip(1).take_while(|argument| *argument != "--") {
        let known = argument.to_str().and_then(|text| text.strip_prefix('-')).is_some_and(|rest| {
            let flag = rest.split('=').next().unwrap_or_default();
            flags.iter().any(|known| known.name == flag)
        });
        if known {
            let mut long = OsString::from("-");
            long.push(&*argument);
            *argument = long;
        }
    }
}

/// `metrics-bind-address` is set by `METRICS_BIND_ADDRESS`.
fn variable(flag: &str) -> String {
    flag.to_uppercase().replace('-', "_")
}

/// A missing required flag may be given by a later variable.
fn is_about_something_else(error: &clap::Error) -> bool {
    use clap::error::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::MissingRequiredArgument | ErrorKind::MissingSubcommand | ErrorKind::InvalidSubcommand
    )
}

fn reason(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

/// Reads a truth value as operators write them in environments.
///
/// # Errors
/// A text that names what is accepted.
pub fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "1" | "on" => Ok(true),
        "false" | "f" | "no" | "0" | "off" => Ok(false),
        _ => Err("use true, t, yes, 1, on or false, f, no, 0, off".to_owned()),
    }
}

/// Reads a share of a whole that is not nothing.
///
/// # Errors
/// A text that names what is accepted.
pub fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "use more than 0 and at most 1".to_owned())
}

/// Reads a duration that is longer than nothing.
///
/// # Errors
/// A text that names what is accepted.
pub fn period(text: &str) -> Result<std::time::Duration, String> {
    duration(text).and_then(|duration| {
        if duration.is_zero() {
            Err("use more than nothing, like 250ms or 5s".to_owned())
        } else {
            Ok(duration)
        }
    })
}

/// Reads what to log: a level, or a filter of levels by target. A word that is
/// neither would be taken for a target, and all else would fall silent.
///
/// # Errors
/// A text that names what is accepted.
pub fn log_filter(text: &str) -> Result<String, String> {
    let level = |word: &str| word.parse::<tracing::level_filters::LevelFilter>().is_ok();
    let directive = |part: &str| level(part.trim()) || part.contains('=');
    if text.split(',').all(directive) && tracing_subscriber::EnvFilter::try_new(text).is_ok() {
        Ok(text.to_owned())
    } else {
        Err("use error, warn, info, debug, trace, or a filter like info,flotilla_core=debug".to_owned())
    }
}

/// Reads a duration like `30s`, `1m30s` or `250ms`.
///
/// # Errors
/// A text that names what is accepted.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    let wrong = || "use a duration like 250ms, 5s or 1m30s".to_owned();
    let mut rest = text;
    let mut total = std::time::Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let (unit, millis) = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)]
            .into_iter()
            .find(|(unit, _)| rest.starts_with(unit))
            .ok_or_else(wrong)?;
        rest = &rest[unit.len()..];
        let part = number.checked_mul(millis).ok_or_else(wrong)?;
        total = total.checked_add(std::time::Duration::from_millis(part)).ok_or_else(wrong)?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::Command;

    fn parse_words(
        words: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<(Args, Vec<Complaint>), clap::Error> {
        let arguments = std::iter::once("flotilla").chain(words.iter().copied()).map(OsString::from);
        parse(arguments, variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    fn port(args: &Args) -> u16 {
        let Command::Controller(controller) = &args.command else { panic!("another command") };
        controller.grpc_port
    }

    #[test]
    fn the_environment_beats_the_flag() {
        let (args, complaints) =
            parse_words(&["controller", "--grpc-port", "1000"], &[("GRPC_PORT", "2000")]).unwrap();
        assert_eq!((port(&args), complaints.len()), (2000, 0));
    }

    #[test]
    fn an_unusable_variable_is_ignored_with_a_reason() {
        let (args, complaints) =
            parse_words(&["controller", "--grpc-port", "1000"], &[("GRPC_PORT", "many")]).unwrap();
        assert_eq!(port(&args), 1000);
        assert_eq!(complaints[0].variable, "GRPC_PORT");
        assert!(complaints[0].problem.contains("many") && complaints[0].problem.contains("--grpc-port"));
    }

    #[test]
    fn a_list_in_the_environment_replaces_the_flag() {
        let words = ["controller", "--cert-dns-names", "a,b"];
        let names = |variables: &[(&str, &str)]| {
            let Command::Controller(args) = parse_words(&words, variables).unwrap().0.command else {
                panic!("another command")
            };
            args.cert_dns_names
        };
        assert_eq!(names(&[]), ["a", "b"]);
        assert_eq!(names(&[("CERT_DNS_NAMES", "c,d")]), ["c", "d"]);
    }

    fn controller(
        words: &[&str],
        variables: &[(&str, &str)],
    ) -> (crate::cli::ControllerArgs, Vec<Complaint>) {
        let words: Vec<&str> = std::iter::once("controller").chain(words.iter().copied()).collect();
        let (args, complaints) = parse_words(&words, variables).unwrap();
        let Command::Controller(args) = args.command else { panic!("another command") };
        (*args, complaints)
    }

    /// Its names, with values other than its defaults (A-140, U0).
    const PUBLISHED: [(&str, &str); 32] = [
        ("metrics-bind-address", ":18080"),
        ("health-probe-bind-address", ":18081"),
        ("leader-elect", "true"),
        ("leader-election-id", "another.avapigw.io"),
        ("webhook-port", "19443"),
        ("webhook-cert-dir", "/certs"),
        ("webhook-config-name", "hooks"),
        ("grpc-port", "19444"),
        ("grpc-require-client-cert", "false"),
        ("cert-provider", "vault"),
        ("vault-addr", "https://vault:8200"),
        ("vault-pki-mount", "pki2"),
        ("vault-pki-role", "role"),
        ("vault-k8s-role", "k8s"),
        ("vault-k8s-mount-path", "kubernetes2"),
        ("vault-init-timeout", "1m"),
        ("log-level", "debug"),
        ("log-format", "console"),
        ("enable-webhooks", "false"),
        ("enable-grpc-server", "true"),
        ("enable-tracing", "true"),
        ("otlp-endpoint", "localhost:4317"),
        ("tracing-sampling-rate", "0.5"),
        ("cert-service-name", "avapigw-operator"),
        ("cert-namespace", "elsewhere"),
        ("cert-dns-names", "a.example.org,b.example.org"),
        ("enable-ingress-controller", "true"),
        ("ingress-class-name", "edge"),
        ("ingress-lb-address", "10.0.0.1"),
        ("enable-cluster-wide-duplicate-check", "true"),
        ("duplicate-cache-enabled", "false"),
        ("duplicate-cache-ttl", "1m"),
    ];

    fn took_all_of_it(args: &crate::cli::ControllerArgs) {
        assert_eq!((args.webhook_port, args.grpc_port), (19443, 19444));
        assert_eq!(args.webhook_configuration.as_deref(), Some("hooks"));
        assert_eq!(args.vault.vault_k8s_mount, "kubernetes2");
        assert!(!args.require_client_certificate && !args.enable_webhooks && args.enable_ingress_controller);
        let given: Vec<&str> = args.published.given().map(|(flag, _)| flag).collect();
        let unused = [
            "leader-elect",
            "leader-election-id",
            "enable-tracing",
            "otlp-endpoint",
            "tracing-sampling-rate",
            "duplicate-cache-enabled",
            "duplicate-cache-ttl",
            "webhook-cert-dir",
        ];
        assert_eq!(given, unused);
    }

    #[test]
    fn flags_of_the_published_operator_are_taken_in_both_of_gos_forms() {
        for dashes in ["-", "--"] {
            let words: Vec<String> =
                PUBLISHED.iter().map(|(flag, value)| format!("{dashes}{flag}={value}")).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            took_all_of_it(&controller(&words, &[]).0);
        }
        let apart: Vec<String> =
            PUBLISHED.iter().flat_map(|(flag, value)| [format!("-{flag}"), (*value).to_owned()]).collect();
        took_all_of_it(&controller(&apart.iter().map(String::as_str).collect::<Vec<_>>(), &[]).0);
    }

    #[test]
    fn variables_of_the_published_operator_beat_the_flags() {
        let variables: Vec<(String, &str)> =
            PUBLISHED.iter().map(|(flag, value)| (variable(flag), *value)).collect();
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (&**name, *value)).collect();
        let (args, complaints) =
            controller(&["--enable-webhooks", "--leader-elect=false", "--vault-k8s-mount=flag"], &variables);
        assert_eq!(complaints, []);
        took_all_of_it(&args);
        assert_eq!(args.published.leader_elect.as_deref(), Some("true"));
        // A name of ours beats another name of the same flag.
        let both = [("VAULT_K8S_MOUNT_PATH", "theirs"), ("VAULT_K8S_MOUNT", "ours")];
        let (args, complaints) = controller(&[], &both);
        assert_eq!(args.vault.vault_k8s_mount, "ours");
        // And not in silence, unless both say the same.
        assert_eq!(complaints.len(), 1);
        assert_eq!(complaints[0].variable, "VAULT_K8S_MOUNT_PATH");
        assert!(complaints[0].problem.contains("VAULT_K8S_MOUNT is another name"), "{complaints:?}");
        let unusable = [("GRPC_REQUIRE_CLIENT_CERT", "false"), ("REQUIRE_CLIENT_CERTIFICATE", "perhaps")];
        let (args, complaints) = controller(&[], &unusable);
        assert_eq!((args.require_client_certificate, complaints.len()), (false, 1));
        let same = [("VAULT_K8S_MOUNT_PATH", "ours"), ("VAULT_K8S_MOUNT", "ours")];
        assert_eq!(controller(&[], &same).1, []);
    }

    #[test]
    fn a_truth_without_a_value_is_true_and_takes_nothing_that_follows() {
        let words = ["--enable-ingress-controller", "--leader-elect", "-enable-webhooks", "--grpc-port", "1"];
        let (args, _) = controller(&words, &[("ENABLE_WEBHOOKS", "perhaps")]);
        assert!(args.enable_ingress_controller && args.enable_webhooks);
        assert_eq!((args.published.leader_elect.as_deref(), args.grpc_port), (Some("true"), 1));
        assert!(controller(&[], &[]).0.published.given().next().is_none());
        let (yes, no) = (["yes", "1", "on", "t", "T"], ["no", "0", "OFF", "f", "F"]);
        for (text, truth) in yes.map(|text| (text, true)).into_iter().chain(no.map(|text| (text, false))) {
            assert_eq!(controller(&["--enable-webhooks", text], &[]).0.enable_webhooks, truth, "{text}");
            assert_eq!(controller(&[], &[("ENABLE_WEBHOOKS", text)]).0.enable_webhooks, truth, "{text}");
        }
        let (args, complaints) = controller(&["--enable-webhooks"], &[("ENABLE_WEBHOOKS", "perhaps")]);
        assert_eq!((args.enable_webhooks, complaints.len()), (true, 1));
        for wrong in ["-grcp-port=1", "-enable-webhooks=perhaps", "-e"] {
            assert!(parse_words(&["controller", wrong], &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_that_have_no_effect_keep_nobody_from_starting() {
        let words = [
            "-duplicate-cache-ttl=0",
            "-leader-elect=t",
            "-tracing-sampling-rate=0x1p-2",
            "-enable-tracing=T",
        ];
        let (args, complaints) = controller(&words, &[("DUPLICATE_CACHE_TTL", "1.5m")]);
        assert_eq!((args.published.given().count(), complaints.len()), (4, 0));
        assert_eq!(args.published.duplicate_cache_ttl.as_deref(), Some("1.5m"));
    }

    #[test]
    fn kubeconfig_of_the_shell_never_points_a_demo_at_a_cluster() {
        let (args, _) = parse_words(&["demo"], &[("KUBECONFIG", "/production")]).unwrap();
        let Command::Demo(demo) = args.command else { panic!("another command") };
        assert_eq!(demo.kubeconfig, None);
        let (args, _) =
            parse_words(&["controller", "--kubeconfig", "mine"], &[("KUBECONFIG", "/other")]).unwrap();
        let Command::Controller(controller) = args.command else { panic!("another command") };
        assert_eq!(controller.kubeconfig, Some("mine".into()));
    }

    #[test]
    fn values_that_would_stop_everything_are_ignored_in_the_environment() {
        let wrong = [
            ("LOG_LEVEL", "verbose"),
            ("STATUS_RATE", "0"),
            ("CONCURRENT_FULL_SYNCS", "0"),
            ("ACK_TIMEOUT", "0s"),
            ("GATEWAY_DUTY_CYCLE", "2"),
        ];
        let (_, complaints) = parse_words(&["controller"], &wrong).unwrap();
        assert_eq!(complaints.len(), wrong.len(), "{complaints:?}");
        for right in ["debug", "info,flotilla_core=debug", "off"] {
            assert!(log_filter(right).is_ok(), "{right}");
        }
    }

    #[test]
    fn children_get_everything_but_what_would_be_a_setting_of_theirs() {
        let variables = [
            ("PATH", "/bin"),
            ("AWS_PROFILE", "staging"),
            ("HTTPS_PROXY", "http://proxy:3128"),
            ("GRPC_PORT", "1"),
            ("GATEWAY_NAME", "g"),
            ("LOG_LEVEL", "debug"),
            ("KUBECONFIG", "/production"),
            ("FLOTILLA_SIM_SEED", "1"),
        ];
        let given = variables.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let kept: Vec<OsString> = for_children(given).map(|(name, _)| name).collect();
        assert_eq!(kept, ["PATH", "AWS_PROFILE", "HTTPS_PROXY"]);
    }

    #[test]
    fn an_unknown_or_wrong_flag_is_an_error_that_names_it() {
        for words in [["controller", "--grcp-port=1"], ["controller", "--grpc-port=x"]] {
            let error = parse_words(&words, &[]).err().unwrap().to_string();
            assert!(error.contains("grcp-port") || error.contains("grpc-port"), "{error}");
        }
    }

    #[test]
    fn durations_and_truths_are_read_as_people_write_them() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["", "5", "s", "-1s", "1d", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(period("0s").is_err() && period("1ms").is_ok());
        assert!(share("0").is_err() && share("NaN").is_err() && share("1").is_ok());
        assert_eq!((truth("On"), truth("0")), (Ok(true), Ok(false)));
        assert!(truth("maybe").is_err());
    }
}
