//! Certificates and authorities are replaced while gateways are connected and tenants
//! write: nobody loses a stream or a change, in whichever way certificates come.

mod files;
mod selfsigned;
mod vault;
mod vault_client;
mod watched;
