//! `cargo xtask demo`: a research agent, a rogue script, and a table of who was stopped by what.
//!
//! Everything in it is real: an HTTP server on loopback outside the sessions, the agent, the kernel. A row that differs from what is
//! expected says so, and the program exits with 1.

#![expect(clippy::print_stdout, reason = "it prints a table")]

mod control;
mod crash;
mod example;
mod scenes;
mod table;

use std::process::ExitCode;

use sentinel_tests::Server;

use crate::control::Control;
use crate::table::{Row, Table};

fn main() -> ExitCode {
    let page = Server::start();
    let other = Server::start();
    let never = Server::start();
    let control = Control::start(vec![page.address(), other.address(), never.address()]);

    let mut table = Table::default();
    let mut scene = |title: &str, rows: &mut dyn FnMut() -> Vec<Row>| {
        println!("… {title}");
        let before = control.tally();
        let mut rows = rows();
        control.wait_for_a_round();
        let now = control.tally();
        rows.push(Row {
            tried: "the same, meanwhile, by a process outside".to_owned(),
            expected: "always succeeds".to_owned(),
            happened: match now.failed - before.failed {
                0 => "always succeeds".to_owned(),
                failed => format!("{failed} failed"),
            },
            stopped_by: "-",
            ledger_line: None,
        });
        table.add(title, rows);
    };

    scene("a research agent with guarded actions", &mut || example::research_agent(&page));
    scene("a rogue script, without the SDK, under the same policy", &mut || example::rogue(&page));
    scene("one process, one address: before, inside and after its action", &mut || {
        scenes::before_inside_after(&page)
    });
    scene("money", &mut || scenes::money(&page, &other));
    scene("bodies and images that must not run", &mut || scenes::forbidden_code());
    scene("children and siblings", &mut || scenes::family(&page));
    scene("an unmodified program: curl", &mut || scenes::curl(&page));
    scene("kill -9 of the agent while an action is in flight (30 s)", &mut || {
        crash::killed_agent(&page, &never)
    });
    scene("the ledger", &mut || scenes::ledger(&page));

    println!("\n{}", table.render());
    let tally = control.tally();
    println!("outside, {} attempts succeeded and {} failed while this ran", tally.succeeded, tally.failed);
    match table.wrong() {
        0 => {
            println!("{} rows, all as expected", table.rows());
            ExitCode::SUCCESS
        }
        wrong => {
            println!("{wrong} of {} rows differ from what is expected", table.rows());
            ExitCode::FAILURE
        }
    }
}
