//! Clients: connections and who reads records.

pub(crate) mod connections;
pub(crate) mod followers;
