//! OpenAPI documents that tell kubectl what is served and which fields there are.
