//! Tests of the models: small ones explored to the end, and mistakes found.

mod designs;
mod handover;
mod versions;
