//! A gateway's version: its position in the log, as a string.
