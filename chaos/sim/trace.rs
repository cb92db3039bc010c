//! What led to a broken promise, for people: the acts of the scenario, what concerns
//! those whom the promise is about, and what happened last.

use std::collections::VecDeque;
use std::fmt::Write as _;

use flotilla_core::breakage::Breakages;

use crate::scenario::Scenario;
use crate::witness::Broken;
use crate::world::World;

/// Lines about those whom it is about.
const ABOUT: usize = 80;
/// Lines at the end, whatever they are about.
const LAST: usize = 60;
/// Acts of the plan that are listed.
const ACTS: usize = 60;

/// The last lines of a story.
struct Tail {
    lines: VecDeque<(u64, String)>,
    most: usize,
    told: usize,
}

impl Tail {
    fn new(most: usize) -> Self {
        Tail { lines: VecDeque::new(), most, told: 0 }
    }

    fn push(&mut self, at: u64, words: &str) {
        self.told += 1;
        if self.lines.len() == self.most {
            self.lines.pop_front();
        }
        self.lines.push_back((at, words.to_owned()));
    }

    fn write(&self, what: &str, text: &mut String) {
        let _ = writeln!(text, "{what} (last {} of {} lines):", self.lines.len(), self.told);
        for (at, words) in &self.lines {
            let _ = writeln!(text, "{:>12.6}  {words}", *at as f64 / 1e9);
        }
    }
}

/// Plays a scenario that breaks a promise once more and tells what led to it.
pub fn explain(scenario: &Scenario, breakages: Breakages, broken: &Broken) -> String {
    let (mut about, mut last) = (Tail::new(ABOUT), Tail::new(LAST));
    let mut tell = |at: u64, words: &str| {
        last.push(at, words);
        if broken.concerns(words) {
            about.push(at, words);
        }
    };
    let again = World::with_story(scenario, Some(&mut tell)).breaking(breakages).run().violation;
    let mut text = String::new();
    let _ = writeln!(text, "{}", broken.text);
    if again.as_ref() != Some(broken) {
        // Playing is deterministic, so this is a mistake of the simulator.
        let _ = writeln!(text, "(playing it once more did not break the same promise: {again:?})");
    }
    let shape = &scenario.shape;
    let _ = writeln!(
        text,
        "{} replicas, {} gateways, {} namespaces, {} acts:",
        shape.replicas,
        shape.gateways.len(),
        shape.namespaces,
        scenario.plan.len()
    );
    for planned in scenario.plan.iter().take(ACTS) {
        let _ = writeln!(text, "{:>12.6}  {:?}", planned.at as f64 / 1e3, planned.what);
    }
    if scenario.plan.len() > ACTS {
        let _ = writeln!(text, "              …");
    }
    let _ = writeln!(text, "weather: {:?}", scenario.weather);
    about.write(&format!("about {}", broken.about.join(", ")), &mut text);
    last.write("in the end", &mut text);
    text
}
