//! Structural schemas of custom resources and the OpenAPI documents made from them.
