//! Two ways to name a version let what a gateway holds go back; the third does not.

use flotilla_model::designs::{Design, Model};
use flotilla_model::{Exploration, Limits, explore};

fn run(design: Design) -> Exploration {
    let model = Model { design, replicas: 2, gateways: 1, writes: 2, crashes: 1 };
    explore(model, Limits { states: 1_000_000, ..Limits::default() })
}

fn goes_back(design: Design, steps: usize) {
    let found = run(design);
    let (broken, way) = found.violation.expect("it is found");
    assert!(broken.starts_with("I2"), "{design:?}: {broken}");
    assert_eq!(way.len(), steps, "{way:#?}");
}

#[test]
fn an_epoch_alone_lets_a_version_go_back() {
    goes_back(Design::Epoch, 4);
}

#[test]
fn an_epoch_with_a_counter_of_the_process_lets_a_version_go_back() {
    goes_back(Design::EpochAndCounter, 5);
}

#[test]
fn the_revision_of_the_log_as_floor_does_not() {
    let found = run(Design::Revision);
    assert_eq!(found.violation, None);
    assert!(found.complete && found.states > 100, "{found:?}");
}
