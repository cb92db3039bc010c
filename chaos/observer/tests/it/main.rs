//! For each promise: what keeps it passes, what breaks it is reported.

mod acting;
mod fleet;
mod gateways;
mod limits;
mod movement;
mod restored;
mod settled;
