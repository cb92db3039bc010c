//! Kills real processes and measures what that costs.
