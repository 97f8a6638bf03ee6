//! The whole way, over real sockets: server, connections, driver.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sentinel_proto::app::{Ask, Begin, Hello, RefusalCode, Refused, Reply, Request};
use sentinel_proto::{
    ActionName, Decision, FrameReader, MAX_FRAME_BYTES, Money, Payload, VERSION, encode_frame,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::{World, run};
use crate::clock::since_boot;
use crate::connection::Door;
use crate::enforcer::Mark;
use crate::server::{MOST_STRANGERS, Server, listen_at};
use crate::watch;

/// A client on `agent.sock`.
struct Client {
    stream: UnixStream,
    reader: FrameReader,
}

impl Client {
    async fn connect(world: &World) -> Self {
        let stream = UnixStream::connect(world.folder.join("agent.sock")).await.unwrap();
        Self { stream, reader: FrameReader::new() }
    }

    async fn greeted(world: &World) -> Self {
        let mut client = Self::connect(world).await;
        client.send(&hello(VERSION)).await;
        let reply = client.receive().await;
        assert!(matches!(reply, Some(Reply::Welcome(_))), "{reply:?}");
        client
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next message; none at the end of the connection.
    async fn receive(&mut self) -> Option<Reply> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(reply) = self.reader.next_message().unwrap() {
                return Some(reply);
            }
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.reader.push(&buffer[..count]),
            }
        }
    }

    async fn refusal(&mut self) -> Refused {
        match self.receive().await {
            Some(Reply::Refused(refused)) => refused,
            other => panic!("not refused: {other:?}"),
        }
    }
}

fn hello(version: u32) -> Vec<u8> {
    encode_frame(&Request::Hello(Hello { version, client: "test".to_owned() })).unwrap()
}

fn begin(request: u64, action: &str) -> Vec<u8> {
    let begin = Begin {
        risk_level: None,
        needs_approval: false,
        request,
        action: ActionName::new(action).unwrap(),
        cost_usd: Money::ZERO,
        tags: Vec::new(),
        inputs: Payload::null(),
        annotations: None,
    };
    encode_frame(&Request::Begin(begin)).unwrap()
}

/// Serves a world with a session that this process is in while `test` runs. Afterwards the driver has been stopped.
async fn serve<F: Future<Output = ()>>(mut world: World, test: impl FnOnce(Rc<World>) -> F) {
    let (launcher, started) = world.start(None);
    let session = started.unwrap().session;
    world.enforcer.set_mark(std::process::id(), Mark { session, scopes: [None; 4], marked_at: since_boot() });
    let server = Server::new(Rc::clone(&world.intake));
    let path = world.folder.join("agent.sock");
    let listener: OwnedFd = listen_at(&path, 0o600, None).unwrap();
    tokio::task::spawn_local(server.accept(Door::Application, watch::readable(listener).unwrap()));
    let spare = World::new();
    let mut driver = std::mem::replace(&mut world.driver, spare.into_driver());
    let (stop, world) = (Rc::new(Notify::new()), Rc::new(world));
    let syncs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&syncs);
    let running = {
        let stop = Rc::clone(&stop);
        tokio::task::spawn_local(async move {
            let to_disk = Arc::new(move || {
                counted.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
            driver.run(async move { stop.notified().await }, None, to_disk).await
        })
    };
    test(Rc::clone(&world)).await;
    stop.notify_one();
    running.await.unwrap().unwrap();
    assert!(
        syncs.load(Ordering::SeqCst) > 0,
        "what was written is brought to the disk at the latest at the end"
    );
    drop(launcher);
}

#[test]
fn a_guarded_action_is_decided_over_the_socket() {
    run(async |world| {
        serve(world, async |world| {
            let mut client = Client::greeted(&world).await;
            client.send(&begin(1, "fetch")).await;
            assert!(matches!(client.receive().await, Some(Reply::Decision(answer)) if answer.decision == Decision::Allow && answer.request == 1));
            client.send(&begin(2, "drop")).await;
            assert!(matches!(client.receive().await, Some(Reply::Decision(answer)) if answer.decision == Decision::Deny && answer.request == 2));
        })
        .await;
    });
}

#[test]
fn many_requests_in_one_write_are_all_answered_in_their_order() {
    run(async |world| {
        serve(world, async |world| {
            let mut client = Client::greeted(&world).await;
            let requests: Vec<u8> = (0..200).flat_map(|number| begin(number, "drop")).collect();
            client.send(&requests).await;
            for number in 0..200 {
                assert!(matches!(client.receive().await, Some(Reply::Decision(answer)) if answer.request == number));
            }
        })
        .await;
    });
}

#[test]
fn bad_frames_are_refused_by_what_is_wrong_with_them_and_disturb_no_other_connection() {
    let framed =
        |text: &str| [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat();
    run(async |world| {
        serve(world, async |world| {
            let mut other = Client::greeted(&world).await;
            let too_long = u32::try_from(MAX_FRAME_BYTES + 1).unwrap().to_le_bytes().to_vec();
            let cases = [
                (false, hello(VERSION + 1), RefusalCode::Version, "version"),
                (false, begin(1, "fetch"), RefusalCode::Malformed, "hello first"),
                (true, hello(VERSION), RefusalCode::Malformed, "second hello"),
                (true, too_long, RefusalCode::Malformed, "too long"),
                (true, vec![0; 4], RefusalCode::Malformed, "empty"),
                (true, framed("{garbage"), RefusalCode::Malformed, "no message"),
                (
                    true,
                    framed("{\"begin\":{\"request\":1,\"action\":\"a\u{1b}b\"}}"),
                    RefusalCode::Malformed,
                    "",
                ),
                (true, framed("{\"nonsense\":{}}"), RefusalCode::Malformed, "nonsense"),
            ];
            for (is_greeted, bytes, code, said) in cases {
                let mut client =
                    if is_greeted { Client::greeted(&world).await } else { Client::connect(&world).await };
                client.send(&bytes).await;
                let refused = client.refusal().await;
                assert_eq!(refused.code, code, "{refused:?}");
                assert!(refused.message.contains(said), "`{said}` is missing in {refused:?}");
                assert!(client.receive().await.is_none(), "and the connection is closed");
            }
            other.send(&begin(1, "fetch")).await;
            assert!(matches!(other.receive().await, Some(Reply::Decision(_))));
        })
        .await;
    });
}

#[test]
fn who_says_no_hello_or_half_a_frame_is_closed_in_time_and_an_idle_connection_is_not() {
    run(async |world| {
        serve(world, async |world| {
            let mut idle = Client::greeted(&world).await;
            let mut silent = Client::connect(&world).await;
            assert!(silent.refusal().await.message.contains("hello"));
            let mut half = Client::greeted(&world).await;
            half.send(&begin(1, "fetch")[..20]).await;
            assert!(half.refusal().await.message.contains("not whole"));
            assert!(half.receive().await.is_none());
            idle.send(&encode_frame(&Request::Totals(Ask { request: 5 })).unwrap()).await;
            assert!(matches!(idle.receive().await, Some(Reply::Totals(totals)) if totals.request == 5));
        })
        .await;
    });
}

#[test]
fn strangers_of_one_uid_are_few_and_leave_room_for_whoever_has_said_hello() {
    run(async |world| {
        serve(world, async |world| {
            let mut strangers = Vec::new();
            for _ in 0..MOST_STRANGERS {
                strangers.push(Client::connect(&world).await);
            }
            let mut one_more = Client::connect(&world).await;
            assert_eq!(one_more.refusal().await.code, RefusalCode::Busy);
            drop(strangers);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            Client::greeted(&world).await;
        })
        .await;
    });
}

#[test]
fn a_peer_that_takes_no_answers_is_closed_and_others_are_served() {
    run(async |world| {
        serve(world, async |world| {
            let mut greedy = Client::greeted(&world).await;
            let ask = encode_frame(&Request::Totals(Ask { request: 5 })).unwrap();
            let flood: Vec<u8> = ask.iter().copied().cycle().take(ask.len() * 2_000).collect();
            // It writes until it is closed, and reads nothing.
            let mut written = 0;
            while greedy.stream.write_all(&flood).await.is_ok() {
                written += 1;
                assert!(written < 100, "it was never closed");
            }
            let mut other = Client::greeted(&world).await;
            other.send(&ask).await;
            assert!(matches!(other.receive().await, Some(Reply::Totals(_))));
        })
        .await;
    });
}
