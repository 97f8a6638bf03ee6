//! What the engine decides, keeps and orders, told by behaviours.

mod budgets;
mod doors;
mod endings;
mod histories;
mod lists;
mod moves;
mod rates;
mod sessions;
mod world;
