//! Runs the decisions of replicas against models of everything around them, in
//! virtual time, with every choice drawn from one seed.
