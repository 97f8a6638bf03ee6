//! A small research agent: fetches a page, summarises it, counts its words with a tool, and shows what it may not do.
//!
//! ```sh
//! sudo sentinel run --policy ./policy.yaml -- ./research_agent 127.0.0.1:8080
//! ```
//!
//! What it does stands in four guarded actions; `policy.yaml` beside this file says which of them may run, what they cost, and which doors
//! each opens. Each line that it prints is `what it tried: what came of it`.

#![expect(clippy::print_stdout, reason = "it reports on standard output")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use sentinel_sdk::guarded_action;

/// The agent said no, or something failed; the SDK's denials and the system's errors in one.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[guarded_action(name = "fetch_page", cost_usd = 0.01, tags = ["web"])]
fn fetch_page(server: SocketAddr) -> Result<String> {
    get(server)
}

#[guarded_action(cost_usd = 0.002, tags = ["llm"])]
async fn summarise(page: &str) -> Result<String> {
    // Where a language model would be asked: the first sentence says most.
    let end = page.find(". ").map_or(page.len(), |dot| dot + 1);
    Ok(page[..end].trim().to_owned())
}

#[guarded_action(name = "count_words", tags = ["tool"])]
fn count_words(text: &str) -> Result<u64> {
    let mut tool =
        Command::new("/usr/bin/wc").arg("-w").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = tool.stdin.take() {
        stdin.write_all(text.as_bytes())?;
    }
    let output = tool.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("the tool ended with {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

#[guarded_action]
fn delete_database() -> Result<()> {
    println!("the body of delete_database ran");
    Ok(())
}

/// The same work as `fetch_page`, without asking anybody.
fn get(server: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(5))?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the server's answer has no end of its head")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(format!("the server answered `{}`", head.lines().next().unwrap_or_default()).into());
    }
    Ok(body.to_owned())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(server) = std::env::args().nth(1).and_then(|address| address.parse().ok()) else {
        println!("usage: research_agent ADDRESS:PORT, of an HTTP server");
        return ExitCode::from(64);
    };
    match research(server).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("the research ended: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn research(server: SocketAddr) -> Result<()> {
    report("fetch without asking", get(server).map(|page| format!("{} bytes", page.len())));
    let page = fetch_page(server)?;
    println!("fetch_page: {} bytes", page.len());
    println!("summarise: {}", summarise(&page).await?);
    println!("count_words: {}", count_words(&page)?);
    report("delete_database", delete_database().map(|()| "done".to_owned()));
    report("fetch without asking, again", get(server).map(|page| format!("{} bytes", page.len())));
    let totals = sentinel_sdk::totals().await?;
    println!("spent: {} dollars", totals.session_usd);
    Ok(())
}

fn report(tried: &str, result: Result<String>) {
    match result {
        Ok(happened) => println!("{tried}: {happened}"),
        Err(error) => println!("{tried}: {error}"),
    }
}
