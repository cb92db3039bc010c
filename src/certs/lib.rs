//! Certificate authority, leaf certificates, TLS configurations and their rotation.
