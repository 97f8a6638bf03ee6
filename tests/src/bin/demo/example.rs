//! The research agent and the rogue script.

use sentinel_tests::Server;

use crate::table::Row;

pub(crate) fn research_agent(_page: &Server) -> Vec<Row> {
    Vec::new()
}

pub(crate) fn rogue(_page: &Server) -> Vec<Row> {
    Vec::new()
}
