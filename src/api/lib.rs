//! Custom resource types, conditions, pure validation and defaulting.
