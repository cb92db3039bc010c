//! The demo goes on: a live table on a terminal, plain lines otherwise, until
//! Ctrl-C. Every minute one replica is killed; it comes back ten seconds later.

use std::time::Duration;

use ratatui::layout::Constraint;
use ratatui::style::{Style, Stylize as _};
use ratatui::text::Line;
use ratatui::widgets::{Block, Row, Table};
use ratatui::{Terminal, TerminalOptions, Viewport};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::round::Round;
use super::{Observers, view, with_book};

const REFRESH: Duration = Duration::from_millis(500);
const LINE_EVERY: Duration = Duration::from_secs(5);
const KILL_EVERY: Duration = Duration::from_secs(60);
const BACK_AFTER: Duration = Duration::from_secs(10);

/// One line of the table.
struct ReplicaRow {
    name: String,
    state: &'static str,
    namespaces: usize,
    gateways: f64,
    patches: f64,
}

/// What is shown.
struct Picture {
    epoch: String,
    leader: String,
    rows: Vec<ReplicaRow>,
    changes: usize,
    open: usize,
    /// The gateway that lacks the most, and how many changes.
    behind: Option<(String, usize)>,
    propagation: super::ledger::Quantiles,
    spurious: usize,
    problem: Option<String>,
}

/// Goes on until the process is told to end.
///
/// # Errors
/// When a process dies that nobody killed, or an observer fails.
pub async fn show(round: &mut Round<'_>, mut observers: Observers) -> anyhow::Result<()> {
    let mut screen =
        round.says.on_terminal().then(|| Screen::open(round.fleet.replicas.len())).transpose()?;
    let mut changes = interval(Duration::from_secs(1) / round.args.rate.max(1));
    changes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refresh = interval(REFRESH);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_line = Instant::now();
    let mut next_kill = Instant::now() + KILL_EVERY;
    let mut back: Option<(usize, Instant)> = None;
    let mut turn = 0;
    let mut problem = None;
    loop {
        tokio::select! {
            // Each of these may wait for a while without harm, in any order.
            error = observers.failed() => return Err(error),
            _ = changes.tick() => {
                // People may edit and delete the tenants' objects meanwhile.
                problem = round.one_change().await.err().map(|error| format!("a change was refused: {error:#}"));
                round.fleet.check()?;
            }
            _ = refresh.tick() => {
                judge_removals(round).await;
                let mut picture = picture(round).await;
                picture.problem.clone_from(&problem);
                match &mut screen {
                    Some(screen) => screen.draw(&picture)?,
                    None if Instant::now() >= next_line => {
                        next_line = Instant::now() + LINE_EVERY;
                        round.says.line(&picture.line());
                    }
                    None => {}
                }
            }
        }
        let now = Instant::now();
        if let Some((index, _)) = back.filter(|(_, at)| *at <= now) {
            round.fleet.start_replica(index)?;
            back = None;
        }
        if now >= next_kill {
            let index = turn % round.fleet.replicas.len();
            turn += 1;
            next_kill = now + KILL_EVERY;
            if let Some(mut process) = round.fleet.replicas[index].process.take() {
                process.kill().await?;
                back = Some((index, now + BACK_AFTER));
            }
        }
    }
}

/// People may delete objects with kubectl, or make them such that they are not
/// delivered: what gateways then remove was asked for.
async fn judge_removals(round: &Round<'_>) {
    let suspicious = with_book(&round.book, |book| book.suspicious());
    if suspicious.is_empty() {
        return;
    }
    // Without an answer there is no judgement; the next look asks again.
    let Ok(objects) = view::objects(&round.fleet.clients.objects).await else { return };
    let delivered = view::delivered(&objects);
    with_book(&round.book, |book| {
        for object in suspicious {
            let asked_for = !delivered.contains(&object);
            book.judge(&object, asked_for);
        }
    });
}

async fn picture(round: &Round<'_>) -> Picture {
    let map = view::shard_map(&round.fleet.clients.objects).await.ok();
    let owners = map.as_ref().map(|map| view::owners(map, &round.namespaces)).unwrap_or_default();
    let mut rows = Vec::new();
    for replica in &round.fleet.replicas {
        let member =
            map.as_ref().is_some_and(|map| map.members.iter().any(|m| m.name.as_str() == replica.name));
        let state = match (&replica.process, member) {
            (None, _) => "killed",
            (Some(_), true) => "member",
            (Some(_), false) => "joining",
        };
        let metric = |name: &'static str, label: &'static str| async move {
            view::metric(replica.metrics, name, label).await.unwrap_or(0.0)
        };
        rows.push(ReplicaRow {
            name: replica.name.clone(),
            state,
            namespaces: owners.values().filter(|owner| **owner == replica.name).count(),
            gateways: metric("avapigw_operator_gateways_connected", "").await,
            patches: metric("flotilla_status_patches_total", "written").await,
        });
    }
    let (changes, open, behind, propagation, spurious) = with_book(&round.book, |book| {
        let behind = book.furthest_behind().map(|(gateway, count)| (gateway.to_owned(), count));
        (book.changes(), book.open(), behind, book.propagation(), book.spurious_deletions())
    });
    Picture {
        epoch: map.as_ref().map_or_else(|| "-".to_owned(), |map| map.epoch.to_string()),
        leader: map.as_ref().map_or_else(|| "-".to_owned(), |map| map.leader.to_string()),
        rows,
        changes,
        open,
        behind,
        propagation,
        spurious,
        problem: None,
    }
}

impl Picture {
    fn summary(&self) -> String {
        let behind = match &self.behind {
            None => "none behind".to_owned(),
            Some((gateway, count)) => format!("{gateway} is {count} behind"),
        };
        format!(
            "{} changes, {} not everywhere yet, {behind}; to the last gateway p50 {:.0} ms, p99 {:.0} ms; unasked deletions {}",
            self.changes, self.open, self.propagation.p50, self.propagation.p99, self.spurious
        )
    }

    fn line(&self) -> String {
        let replicas: Vec<String> = self
            .rows
            .iter()
            .map(|row| {
                format!("{} {} {} namespaces {} gateways", row.name, row.state, row.namespaces, row.gateways)
            })
            .collect();
        format!("epoch {} leader {} | {} | {}", self.epoch, self.leader, replicas.join("; "), self.summary())
    }
}

/// The lines at the bottom of the terminal that the table has for itself.
struct Screen(Terminal<ratatui::backend::CrosstermBackend<std::io::Stdout>>);

impl Screen {
    fn open(replicas: usize) -> anyhow::Result<Screen> {
        let height = u16::try_from(replicas + 5)?;
        let backend = ratatui::backend::CrosstermBackend::new(std::io::stdout());
        Ok(Screen(Terminal::with_options(backend, TerminalOptions { viewport: Viewport::Inline(height) })?))
    }

    fn draw(&mut self, picture: &Picture) -> anyhow::Result<()> {
        let rows = picture.rows.iter().map(|row| {
            let style = if row.state == "killed" { Style::new().red() } else { Style::new() };
            Row::new(vec![
                row.name.clone(),
                row.state.to_owned(),
                row.namespaces.to_string(),
                row.gateways.to_string(),
                row.patches.to_string(),
            ])
            .style(style)
        });
        let header = Row::new(vec!["replica", "state", "namespaces", "gateways", "status patches"]).bold();
        let table = Table::new(rows, [Constraint::Length(14); 5]).header(header).block(
            Block::bordered()
                .title(format!(" epoch {} · leader {} ", picture.epoch, picture.leader))
                .title_bottom(Line::from(format!(" {} ", picture.summary()))),
        );
        self.0.draw(|frame| frame.render_widget(table, frame.area()))?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The shell's prompt comes below what was drawn last.
        let _ = self.0.show_cursor();
        let _ = std::io::Write::write_all(&mut std::io::stdout().lock(), b"\n");
    }
}
