//! Logs: JSON lines with the keys `level`, `ts`, `msg` and the event's fields
//! or lines for people. Always on standard error, so that standard
//! output belongs to results.

use std::fmt;

use chrono::{SecondsFormat, Utc};
use clap::ValueEnum;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::environment::log_filter;

/// What logs look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Console,
}

/// Flags about logs, common to all commands.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// error, warn, info, debug, trace, or a filter like `info,flotilla_core=debug`.
    /// Default: info (warn for demo)
    #[arg(long, global = true, value_name = "LEVEL", value_parser = log_filter)]
    pub log_level: Option<String>,
    /// json, or console for people
    #[arg(long, global = true, value_enum, default_value = "json")]
    pub log_format: LogFormat,
}

/// Starts logging for the process. Called once.
pub fn init(args: &LogArgs, default: &str) {
    let filter = EnvFilter::new(args.log_level.as_deref().unwrap_or(default));
    // Nobody may be reading: saying so on the same standard error would panic.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    // A second initialisation happens only in tests and changes nothing.
    let _ = match args.log_format {
        LogFormat::Json => builder.event_format(JsonLines).try_init(),
        LogFormat::Console => builder.compact().try_init(),
    };
}

struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let mut line = Map::new();
        line.insert("level".to_owned(), event.metadata().level().as_str().to_lowercase().into());
        line.insert("ts".to_owned(), Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true).into());
        line.insert("msg".to_owned(), fields.0.remove("message").unwrap_or_else(|| "".into()));
        line.insert("logger".to_owned(), event.metadata().target().into());
        line.append(&mut fields.0);
        writeln!(writer, "{}", Value::Object(line))
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, value.to_string().into());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}
