//! Scenarios that are written down: what a run found, made small, to be played again
//! by people, and by every test run once it is mended.

use flotilla_core::breakage::{Breakage, Breakages};
use serde::{Deserialize, Serialize};

use crate::scenario::Scenario;
use crate::world::{Outcome, World};

/// What stands in a file of `seeds/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// What it showed when it was found, and what was done about it: for people.
    pub says: String,
    /// What was broken on purpose when it was found. Then playing it must break a
    /// promise; otherwise it must not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breakage: Option<Breakage>,
    /// The run.
    pub scenario: Scenario,
}

/// A file that is no kept scenario.
#[derive(Debug, thiserror::Error)]
#[error("no kept scenario: {0}; write one with `chaos sim --keep DIR`")]
pub struct Unreadable(serde_json::Error);

impl Kept {
    /// Reads a file's text.
    ///
    /// # Errors
    /// When it is something else.
    pub fn read(text: &str) -> Result<Self, Unreadable> {
        serde_json::from_str(text).map_err(Unreadable)
    }

    /// A file's text: one line per act of the plan, so that changes can be compared.
    ///
    /// # Errors
    /// Never, as far as is known.
    pub fn write(&self) -> Result<String, serde_json::Error> {
        let plan = &self.scenario.plan;
        let empty = Kept { scenario: Scenario { plan: Vec::new(), ..self.scenario.clone() }, ..self.clone() };
        let text = serde_json::to_string_pretty(&empty)?;
        let mut acts = Vec::with_capacity(plan.len());
        for planned in plan {
            acts.push(format!("\n      {}", serde_json::to_string(planned)?));
        }
        if acts.is_empty() {
            return Ok(text + "\n");
        }
        Ok(text.replacen("\"plan\": []", &format!("\"plan\": [{}\n    ]", acts.join(",")), 1) + "\n")
    }

    /// What is broken when it is played.
    pub fn breakages(&self) -> Breakages {
        self.breakage.map_or(Breakages::default(), Breakages::only)
    }

    /// Plays it.
    pub fn play(&self) -> Outcome {
        World::new(&self.scenario).breaking(self.breakages()).run()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::{Size, draw};

    #[test]
    fn what_is_written_is_what_is_read() {
        for breakage in [None, Some(Breakage::LowForHigh)] {
            let kept = Kept { says: "found \"it\"".to_owned(), breakage, scenario: draw(3, Size::small(2)) };
            let text = kept.write().unwrap();
            assert!(text.lines().count() > kept.scenario.plan.len());
            assert_eq!(Kept::read(&text).unwrap(), kept);
        }
    }

    #[test]
    fn what_is_something_else_is_refused() {
        let error = Kept::read("{}").unwrap_err().to_string();
        assert!(error.contains("no kept scenario") && error.contains("--keep"), "{error}");
    }
}
