//! The requests of list and watch, and the lines that they answer with.

use std::pin::Pin;
use std::time::Duration;

use flotilla_core::ids::{Kind, Revision};
use flotilla_core::object::RawObject;
use futures::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};
use http::Request;
use kube::Client;
use rand::Rng;
use tokio::time::timeout;

use super::WatchConfig;
use crate::Error;
use flotilla_core::wire::{self, Line};

/// Longest line of a watch: etcd's limit of an object (1.5 MiB) with room for
/// encoding. A longer one is an error, not a reason to use memory.
const LONGEST_LINE: u64 = 8 * 1024 * 1024;

/// One kind on one API server.
pub(super) struct Source {
    client: Client,
    kind: Kind,
    config: WatchConfig,
}

impl Source {
    pub(super) fn new(client: Client, kind: Kind, config: WatchConfig) -> Self {
        Source { client, kind, config }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn config(&self) -> &WatchConfig {
        &self.config
    }

    fn path(&self) -> String {
        format!("/apis/avapigw.io/v1alpha1/{}", self.kind.plural())
    }

    fn get(&self, what: &str, uri: String) -> Result<Request<Vec<u8>>, Error> {
        Request::get(uri)
            .body(Vec::new())
            .map_err(|error| Error::Permanent { what: what.to_owned(), message: error.to_string() })
    }

    /// Reads everything, page by page, at one revision.
    pub(super) async fn list(&self) -> Result<(Revision, Vec<RawObject>), Error> {
        let mut all = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let mut query = format!("limit={}", self.config.page);
            if let Some(token) = &next {
                query.push_str("&continue=");
                query.extend(percent(token));
            }
            let page = self.page(&query).await?;
            all.extend(page.objects);
            match page.next {
                Some(token) => next = Some(token),
                None => return Ok((page.revision, all)),
            }
        }
    }

    /// Reads everything as it was at a revision that the log has reached, if that
    /// is one page.
    pub(super) async fn list_at(&self, revision: Revision) -> Result<Option<Vec<RawObject>>, Error> {
        let size = self.config.page;
        let query = format!("limit={size}&resourceVersion={revision}&resourceVersionMatch=Exact");
        let page = self.page(&query).await?;
        Ok((page.next.is_none() && page.revision == revision).then_some(page.objects))
    }

    /// The newest revision, by a list of one object.
    pub(super) async fn newest(&self) -> Result<Revision, Error> {
        Ok(self.page("limit=1").await?.revision)
    }

    async fn page(&self, query: &str) -> Result<wire::Page, Error> {
        let what = format!("list {}", self.kind.plural());
        let request = self.get(&what, format!("{}?{query}", self.path()))?;
        let body = timeout(self.config.list_timeout, self.read_all(&what, request))
            .await
            .map_err(|_| Error::timeout(&what, self.config.list_timeout))??;
        wire::parse_page(self.kind, &body).map_err(|error| self.unreadable(&what, &error))
    }

    /// Whether the API server knows as much as was seen of it.
    pub(super) async fn reaches(&self, seen: Revision) -> Result<(), Error> {
        match self.newest().await? {
            newest if newest < seen => {
                Err(Error::Behind { what: format!("read {}", self.kind.plural()), newest, seen })
            }
            _ => Ok(()),
        }
    }

    async fn read_all(&self, what: &str, request: Request<Vec<u8>>) -> Result<Vec<u8>, Error> {
        let stream = self.client.request_stream(request).await.map_err(|e| Error::from_kube(what, e))?;
        let mut body = Vec::new();
        std::pin::pin!(stream).read_to_end(&mut body).await.map_err(|error| broken(what, error))?;
        Ok(body)
    }

    /// Opens a watch from `since`. `seconds` replaces the configured time-out.
    pub(super) async fn watch(&self, since: Revision, seconds: Option<u64>) -> Result<Lines, Error> {
        let what = format!("watch {}", self.kind.plural());
        let usual = self.config.watch_timeout.as_secs().max(5);
        let seconds = seconds.unwrap_or_else(|| usual + rand::rng().random_range(0..=usual / 5));
        let uri = format!(
            "{}?watch=true&allowWatchBookmarks=true&resourceVersion={since}&timeoutSeconds={seconds}",
            self.path()
        );
        let request = self.get(&what, uri)?;
        let stream = timeout(self.config.open_timeout, self.client.request_stream(request))
            .await
            .map_err(|_| Error::timeout(&what, self.config.open_timeout))?
            .map_err(|e| Error::from_kube(&what, e))?;
        Ok(Lines {
            kind: self.kind,
            what,
            idle: self.config.idle_timeout,
            reader: Box::pin(stream),
            line: Vec::new(),
        })
    }

    /// An ERROR event as an error.
    pub(super) fn line_error(&self, code: u16, message: String) -> Error {
        let what = format!("watch {}", self.kind.plural());
        match code {
            410 => Error::Gone { what },
            401 | 403 => Error::Denied { what, message },
            _ => Error::Transient { what, retry_after: None, source: message.into() },
        }
    }

    fn unreadable(&self, what: &str, error: &wire::WireError) -> Error {
        Error::Permanent { what: what.to_owned(), message: error.to_string() }
    }
}

/// The lines of one watch.
pub(super) struct Lines {
    kind: Kind,
    what: String,
    idle: Duration,
    reader: Pin<Box<dyn AsyncBufRead + Send>>,
    line: Vec<u8>,
}

impl Lines {
    /// The next line; `None` when the server ended the watch. Nothing is lost when
    /// it is given up before: what was read of a line is kept for the next call.
    pub(super) async fn next(&mut self) -> Result<Option<Line>, Error> {
        loop {
            let room = LONGEST_LINE.saturating_sub(self.line.len() as u64);
            let mut limited = (&mut self.reader).take(room);
            let read = timeout(self.idle, limited.read_until(b'\n', &mut self.line))
                .await
                .map_err(|_| Error::timeout(&self.what, self.idle))?
                .map_err(|error| broken(&self.what, error))?;
            if read == 0 && self.line.is_empty() {
                return Ok(None);
            }
            if self.line.last() != Some(&b'\n') {
                let message = if read as u64 == room { "a line is too long" } else { "cut inside a line" };
                return Err(broken(&self.what, std::io::Error::other(message)));
            }
            if self.line.iter().all(u8::is_ascii_whitespace) {
                self.line.clear();
                continue;
            }
            let parsed = wire::parse_line(self.kind, &self.line);
            self.line.clear();
            return parsed
                .map(Some)
                .map_err(|error| Error::Permanent { what: self.what.clone(), message: error.to_string() });
        }
    }
}

fn broken(what: &str, error: std::io::Error) -> Error {
    Error::Transient { what: what.to_owned(), retry_after: None, source: Box::new(error) }
}

/// A continue token is base64: only these need encoding in a query.
fn percent(token: &str) -> impl Iterator<Item = char> + '_ {
    token.chars().flat_map(|c| {
        let encoded: &str = match c {
            '+' => "%2B",
            '/' => "%2F",
            '=' => "%3D",
            '&' => "%26",
            '%' => "%25",
            _ => "",
        };
        encoded.chars().chain(encoded.is_empty().then_some(c))
    })
}
