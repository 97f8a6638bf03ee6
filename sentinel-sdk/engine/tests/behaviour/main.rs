//! What the engine decides, keeps and orders, told by behaviours.

mod approvals;
mod budgets;
mod doors;
mod endings;
mod histories;
mod limits;
mod lists;
mod moves;
mod rates;
mod sessions;
mod world;
