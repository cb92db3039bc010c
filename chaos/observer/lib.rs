//! Checks what was seen of a fleet against its promises. It shares no code with
//! the product: a mistake in the product must not hide itself here.
