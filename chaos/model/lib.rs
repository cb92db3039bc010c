//! Small models of the protocols, explored exhaustively: simulation finds what is
//! likely, this finds what is possible.
